"""Peak memory of a call on the CPU, by the kernel's own account of this process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def why_unknown() -> str | None:
    """None where peaks can be measured: on Linux with a glibc."""
    if sys.platform != "linux" or not _RESET.exists():
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
    """Bytes that were resident at most during the call beyond those before it, and its result.

    Counts the compiled kernels' working memory too, and everything that the result holds.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is needed now
    before = _status("VmRSS")
    _RESET.write_text("5")  # the peak becomes what is resident now
    result = call()
    return max(0, _status("VmHWM") - before), result
