"""Devices and precisions by name."""

from __future__ import annotations

import os

import torch

from swin_umamba.errors import UserError


def usable_cores() -> int:
    """The CPU cores that this process may use; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a CUDA device if there is one, else the CPU.

    Raises UserError for a name torch does not know or a device this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch asserts that it was compiled for a device; its first line says all.
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
    """What a config's `amp` comes to there: "off", "bf16" or "fp16".

    "auto" is bf16 where the GPU computes in it. Before compute capability 8.0 (V100, T4) PyTorch
    only emulates it, and says that it is supported: fp16 there.
    """
    if device.type != "cuda":
        return "off"
    if amp == "auto":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    return amp
