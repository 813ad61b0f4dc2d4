"""Peak memory of a call on the CPU, as reported by the kernel for this process."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def why_unknown() -> str | None:
    """None if peaks can be measured: on Linux with glibc; else the reason."""
    if sys.platform != "linux" or not os.access(_RESET, os.W_OK):
        return "peak memory is read from Linux's /proc"
    return (
        None if hasattr(ctypes.CDLL(None), "malloc_trim") else "this C library has no malloc_trim"
    )


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) << 10
    raise ValueError(f"{_STATUS} has no {field}")


def peak_bytes(call: Callable[[], object]) -> tuple[int, object]:
    """Peak resident bytes during the call beyond those before it, and the call's result.

    Includes the compiled kernels' working memory, and everything that the result holds.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory freed earlier must not hide what is needed now
    before = _status("VmRSS")
    _RESET.write_text("5")  # reset the peak to what is resident now
    result = call()
    return max(0, _status("VmHWM") - before), result
