"""The private names of PyTorch that this package uses, each with the reason.

Nothing else in this package uses one. tests/ops/test_torch_private.py fails if one disappears, or
if PyTorch gets a public one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant_result(function: _Function) -> _Function:
    """Mark a function whose result compiled programs may treat as a constant.

    torch.compiler.assume_constant_result does the same, but imports the compiler, which takes
    longer than importing all of torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def transforms_active() -> bool:
    """Whether a torch.func transform, or forward-mode differentiation, is active.

    A Function that is not differentiated only costs time, as much as a small kernel; but transforms
    and forward mode need it even if no tensor requires a gradient.
    """
    return (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


# Missing if torch was built without CUDA.
_raw_stream: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


def raw_stream(device: torch.device) -> int:
    """The handle of a GPU's current stream.

    torch.cuda.current_stream().cuda_stream creates a Stream first, which takes as long as a launch.
    """
    if _raw_stream is None:
        return int(torch.cuda.current_stream(device).cuda_stream)
    return _raw_stream(device.index)


def scan_operator() -> Callable[..., Any]:
    """torch's scan, the only operator that exports as a loop; a prototype without a public name.
    Imported late, since it imports the compiler."""
    from torch._higher_order_ops.scan import scan

    operator: Callable[..., Any] = scan
    return operator
