"""Instance norm, residual and leaky ReLU: its ops, and autograd around them.

x, residual: (B, H, W, C), contiguous, of one dtype; weight, bias: (C,), both or neither; kind: what
is done with the residual, by numerics.py. Statistics: (2, or 4 where the residual is normalised
too, B, C), mean and one over the deviation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.backends._memory import addressable
from swin_umamba_ops.numerics import NO_RESIDUAL, NORMALISED_RESIDUAL
from swin_umamba_ops.ops._check import has_shape, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    define,
    first_derivative,
    like_wanted,
    only_wanted,
    picked,
    spread,
    takes,
    wants_grad,
)

_ALL = (True,) * 4
_Inputs = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


def _kernels(backend: str, inputs: _Inputs, kind: int) -> Any:
    x, weight, bias, residual = inputs
    has_shape("x", x, "B", "H", "W", "C")
    if (weight is None) != (bias is None):
        raise ValueError("weight and bias: got one of them, expected both or neither")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None:
            has_shape(name, t, x.shape[3])
    if (residual is None) != (kind == NO_RESIDUAL) or not 0 <= kind <= NORMALISED_RESIDUAL:
        raise ValueError(f"kind is {kind}, which does not fit the residual")
    if residual is not None:
        has_shape("residual", residual, *x.shape)
        same_dtype(x.dtype, ("residual",), (residual,))
    return backends.kernels("instance_norm_act", backend, x.device, x.dtype, 0)


def _statistics(x: Tensor, kind: int) -> Tensor:
    rows = 4 if kind == NORMALISED_RESIDUAL else 2
    return x.new_empty((rows, x.shape[0], x.shape[3]), dtype=torch.float32)


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
    backend: str = "triton",
) -> tuple[Tensor, Tensor]:
    inputs = (x, weight, bias, residual)
    kernels = _kernels(backend, inputs, kind)
    if x.numel() == 0:
        return torch.empty_like(x), _statistics(x, kind)
    result: tuple[Tensor, Tensor] = kernels.forward(*inputs, kind, eps, slope)
    return result


def _forward_fake(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
    backend: str = "triton",
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), _statistics(x, kind)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    stats: Tensor,
    kind: int,
    slope: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    inputs = (x, weight, bias, residual)
    kernels = _kernels(backend, inputs, kind)
    has_shape("dy", dy, *x.shape)
    has_shape("stats", stats, *_statistics(x, kind).shape)
    same_dtype(torch.float32, ("stats",), (stats,))
    chosen = tuple(wanted or _ALL)
    if x.numel() == 0:
        gradients = [None if t is None else torch.zeros_like(t) for t in inputs]
    else:
        # A part of a larger map's channels is read as it lies: its values lie apart.
        rows = dy if dy.stride(3) == 1 and not dy.is_neg() else addressable(dy)
        gradients = kernels.backward(rows, *inputs, stats, kind, slope, wanted=chosen)
    return only_wanted(inputs, gradients, chosen)


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    stats: Tensor,
    kind: int,
    slope: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted((x, weight, bias, residual), wanted or _ALL)


instance_norm_act_op = define(
    "instance_norm_act(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, int kind, "
    'float eps, float slope, str backend="triton") -> (Tensor, Tensor)',
    _forward,
    _forward_fake,
)
instance_norm_act_backward_op = define(
    "instance_norm_act_backward(Tensor dy, Tensor x, Tensor? weight, Tensor? bias, "
    'Tensor? residual, Tensor stats, int kind, float slope, str backend="triton", '
    "bool[]? wanted=None) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    any_layout=("dy",),
)


@takes(8)
class _InstanceNormAct(torch.autograd.Function):
    """Keeps the inputs and their statistics; the activation's sign is recomputed."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        kind: int,
        eps: float,
        slope: float,
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = instance_norm_act_op(
            x, weight, bias, residual, kind, eps, slope, backend
        )
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.kind, _, ctx.slope, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:4]
        if dy is None or not any(wanted):
            return (None,) * 8
        settings = (ctx.kind, ctx.slope, ctx.backend)
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, *settings, wanted)
        return (*spread(found, wanted), None, None, None, None)


def _gradients(*inputs: Any) -> tuple[Tensor, ...]:
    *given, wanted = inputs
    gradients = instance_norm_act_backward_op(*given, list(wanted))
    return picked(gradients, wanted)


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
    backend: Backend,
) -> Tensor:
    """leaky_relu(InstanceNorm(x) * weight + bias + residual, slope) of x (B, C, H, W), by a
    backend."""
    y: Tensor
    if (formula := backend.formulas.get("instance_norm_act")) is not None:
        y = formula(x, weight, bias, residual, kind, eps, slope)
        return y
    y = apply(
        _InstanceNormAct,
        wants_grad(x, weight, bias, residual),
        x.permute(0, 2, 3, 1).contiguous(),
        weight,
        bias,
        None if residual is None else residual.permute(0, 2, 3, 1).contiguous(),
        kind,
        eps,
        slope,
        backend.name,
    )[0]
    return y.permute(0, 3, 1, 2)
