"""Shared by the Triton kernels around the scan: device checks, and the partition into programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from swin_umamba_ops.backends import triton as backend
from swin_umamba_ops.backends._device import current

_Result = TypeVar("_Result")
_PROCESSORS_OF_A_CPU = 2  # for Triton's interpreter: enough to partition the work


def why_unusable() -> str | None:
    """None if the Triton backend works on this machine, else the reason."""
    reason: str | None = backend.why_unusable()
    return reason


def why_unsupported(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """None if the kernels support such tensors (as for the scan, on CUDA), else the reason."""
    if device.type not in ("cuda", "cpu"):
        return f"it supports CUDA tensors, not {device.type}"
    reason: str | None = backend.why_unsupported(device, dtype, 0)
    return reason


def on_its_device(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Decorator that makes the GPU of the first argument, a tensor or a record that begins with
    one, current: Triton launches on the current GPU."""

    @functools.wraps(function)
    def run(first: Any, *others: Any, **named: Any) -> _Result:
        with current((first if isinstance(first, Tensor) else first[0]).device):
            return function(first, *others, **named)

    return run


def processors(device: torch.device) -> int:
    """Number of multiprocessors of a GPU."""
    return max(backend.processors(device), _PROCESSORS_OF_A_CPU)
