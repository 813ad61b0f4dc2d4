"""Ops called past the dispatcher: its way from Python to Python takes longer than small kernels."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_PLAIN = {Tensor, torch.nn.Parameter, str, bool, int, float, torch.dtype, NoneType}


def watched(inputs: tuple[Any, ...]) -> bool:
    """Whether somebody would notice if an op on these inputs, a tensor first, went past the
    dispatcher.

    Who would: the compiler, tensors of other classes or without memory, modes (fake tensors, FLOP
    counters), transforms, traces, the profiler, and forward-mode derivatives, which ops refuse.
    """
    return bool(
        torch.compiler.is_compiling()
        or not _PLAIN.issuperset(map(type, inputs))
        or inputs[0].is_meta
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_torch_function_mode_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or torch._C._autograd._profiler_enabled()
        or forward_ad._current_level >= 0
    )


def past_dispatcher(
    op: Callable[..., Any], implementation: Callable[..., Any], function: Any = None
) -> Callable[..., Any]:
    """`op`, past the dispatcher where nobody would notice.

    function: the autograd.Function of the op; None for one that is called where autograd has
    nothing to record.
    """

    def call(*inputs: Any) -> Any:
        if watched(inputs):
            return op(*inputs)
        if (
            function is not None
            and torch.is_grad_enabled()
            and any(isinstance(t, Tensor) and t.requires_grad for t in inputs)
        ):
            return function.apply(*inputs)
        return implementation(*inputs)

    return call
