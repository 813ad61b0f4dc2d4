"""The names of PyTorch that are not public and that we use all the same, each with the reason.

Nothing else in this package uses one. tests/ops/test_torch_private.py fails when one disappears, or
when PyTorch has a public one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant_result(function: _Function) -> _Function:
    """Mark a function whose result compiled programs may take as a constant.

    torch.compiler.assume_constant_result does no more, but imports the compiler, which takes longer
    than to import all of torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def transforms_active() -> bool:
    """Whether a transform of torch.func is active, or a level of forward-mode derivatives.

    A Function that nobody differentiates is only in the way, and takes as long as a small kernel;
    but these see it where no tensor requires a gradient.
    """
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


# Absent where torch was built without CUDA.
_raw_stream: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def raw_stream(device: torch.device) -> int:
    """The handle of a GPU's current stream.

    torch.cuda.current_stream().cuda_stream makes a Stream first, which takes as long as a launch.
    """
    if _raw_stream is None:
        return int(torch.cuda.current_stream(device).cuda_stream)
    return _raw_stream(device.index)


def scan_operator() -> Callable[..., Any]:
    """torch's scan, the only operator that exports as a loop; a prototype without a
    public name. Imported late: with it comes the compiler."""
    from torch._higher_order_ops.scan import scan

    operator: Callable[..., Any] = scan
    return operator
