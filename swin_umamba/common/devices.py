"""Devices and precisions by name."""

from __future__ import annotations

import os

import torch

from swin_umamba.errors import UserError


def usable_cores() -> int:
    """Number of CPU cores this process may use; all cores if the system does not report it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """The device with that name; "auto" is a CUDA device if there is one, else the CPU.

    Raises UserError for a name that PyTorch does not know or a device that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # The first line of PyTorch's assertion is enough: it was not compiled for the device.
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used: {reason}") from error
    return device


def half_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None to stay in float32. UserError unless amp is "off", or on a
    GPU "bf16" or "fp16"."""
    dtypes = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if amp not in dtypes:
        raise UserError(f"amp: got {amp!r}, expected one of {', '.join(dtypes)}")
    if amp != "off" and device.type == "cpu":
        raise UserError(f"amp: got {amp!r}, which needs a GPU; on a CPU it is 'off'")
    return dtypes[amp]


def amp_on(device: torch.device, amp: str) -> str:
    """Resolve a config's `amp` on a device: "off", "bf16" or "fp16".

    "auto" is bf16 if the GPU supports it natively. Below compute capability 8.0 (V100, T4) PyTorch
    only emulates bf16 yet reports it as supported; there "auto" is fp16.
    """
    if device.type != "cuda":
        return "off"
    if amp == "auto":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    return amp
