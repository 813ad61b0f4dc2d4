"""3x3 convolutions, alone or after an instance norm and leaky ReLU: their ops, and autograd around
them.

x: (B, H, W, C), contiguous; weight: (E, C, 3, 3), in any layout: it is brought to x's dtype, and
again in the backward pass, so that the weight alone is kept until then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.ops._check import has_shape, same_dtype
from swin_umamba_ops.ops._define import (
    apply,
    define,
    first_derivative,
    only_wanted,
    picked,
    spread,
    takes,
    wants_grad,
)

_ALL = (True, True)


def _kernels(op: str, backend: str, x: Tensor, weight: Tensor) -> Any:
    has_shape("x", x, "B", "H", "W", "C")
    has_shape("weight", weight, "E", x.shape[3], 3, 3)
    return backends.kernels(op, backend, x.device, x.dtype, 0)


def _backward_kernels(op: str, backend: str, dy: Tensor, x: Tensor, weight: Tensor) -> Any:
    kernels = _kernels(op, backend, x, weight)
    has_shape("dy", dy, *x.shape[:3], weight.shape[0])
    same_dtype(x.dtype, ("dy",), (dy,))
    return kernels


def _output(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:3], weight.shape[0]))


def _statistics(x: Tensor) -> Tensor:
    return x.new_empty((2, x.shape[0], x.shape[3]), dtype=torch.float32)


def _gradients_fake(x: Tensor, weight: Tensor, wanted: list[bool] | None) -> tuple[Tensor, ...]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    return only_wanted((x, weight), (dx, torch.empty_like(weight)), wanted or _ALL)


# ---- conv3x3


def _forward(x: Tensor, weight: Tensor, backend: str = "triton") -> Tensor:
    kernels = _kernels("conv3x3", backend, x, weight)
    if x.numel() == 0:
        return _output(x, weight)
    y: Tensor = kernels.forward(x, weight)
    return y


def _forward_fake(x: Tensor, weight: Tensor, backend: str = "triton") -> Tensor:
    return _output(x, weight)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels, chosen = _backward_kernels("conv3x3", backend, dy, x, weight), tuple(wanted or _ALL)
    if x.numel() == 0:
        return only_wanted((x, weight), (torch.zeros_like(x), torch.zeros_like(weight)), chosen)
    gradients = kernels.backward(dy, x, weight, wanted=chosen)
    return only_wanted((x, weight), gradients, chosen)


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return _gradients_fake(x, weight, wanted)


conv3x3_op = define(
    'conv3x3(Tensor x, Tensor weight, str backend="triton") -> Tensor',
    _forward,
    _forward_fake,
    any_layout=("weight",),
)
conv3x3_backward_op = define(
    'conv3x3_backward(Tensor dy, Tensor x, Tensor weight, str backend="triton", '
    "bool[]? wanted=None) -> (Tensor, Tensor)",
    _backward,
    _backward_fake,
    any_layout=("weight",),
)


@takes(3)
class _Conv3x3(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, backend: str) -> Tensor:
        y: Tensor = conv3x3_op(x, weight, backend)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.backend = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        if not any(wanted):
            return (None,) * 3
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, ctx.backend, wanted)
        return (*spread(found, wanted), None)


def _gradients(
    dy: Tensor, x: Tensor, weight: Tensor, backend: str, wanted: tuple[bool, ...]
) -> tuple[Tensor, ...]:
    gradients = conv3x3_backward_op(dy.contiguous(), x, weight, backend, list(wanted))
    return picked(gradients, wanted)


def conv3x3(x: Tensor, weight: Tensor, backend: Backend) -> Tensor:
    """conv2d(x, weight, padding=1) of x (B, C, H, W), by a backend."""
    y: Tensor
    if (formula := backend.formulas.get("conv3x3")) is not None:
        y = formula(x, weight)
        return y
    x = x.permute(0, 2, 3, 1).contiguous()
    y = apply(_Conv3x3, wants_grad(x, weight), x, weight, backend.name)
    return y.permute(0, 3, 1, 2)


# ---- norm_act_conv3x3


def _norm_act_forward(
    x: Tensor, weight: Tensor, eps: float, slope: float, backend: str = "triton"
) -> tuple[Tensor, Tensor]:
    kernels = _kernels("norm_act_conv3x3", backend, x, weight)
    if x.numel() == 0:
        return _output(x, weight), _statistics(x)
    result: tuple[Tensor, Tensor] = kernels.norm_act_forward(x, weight, eps, slope)
    return result


def _norm_act_fake(
    x: Tensor, weight: Tensor, eps: float, slope: float, backend: str = "triton"
) -> tuple[Tensor, Tensor]:
    return _output(x, weight), _statistics(x)


def _norm_act_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stats: Tensor,
    slope: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels = _backward_kernels("norm_act_conv3x3", backend, dy, x, weight)
    has_shape("stats", stats, *_statistics(x).shape)
    same_dtype(torch.float32, ("stats",), (stats,))
    chosen = tuple(wanted or _ALL)
    if x.numel() == 0:
        return only_wanted((x, weight), (torch.zeros_like(x), torch.zeros_like(weight)), chosen)
    gradients = kernels.norm_act_backward(dy, x, weight, stats, slope, wanted=chosen)
    return only_wanted((x, weight), gradients, chosen)


def _norm_act_backward_fake(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    stats: Tensor,
    slope: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return _gradients_fake(x, weight, wanted)


norm_act_conv3x3_op = define(
    "norm_act_conv3x3(Tensor x, Tensor weight, float eps, float slope, "
    'str backend="triton") -> (Tensor, Tensor)',
    _norm_act_forward,
    _norm_act_fake,
    any_layout=("weight",),
)
norm_act_conv3x3_backward_op = define(
    "norm_act_conv3x3_backward(Tensor dy, Tensor x, Tensor weight, Tensor stats, float slope, "
    'str backend="triton", bool[]? wanted=None) -> (Tensor, Tensor)',
    _norm_act_backward,
    _norm_act_backward_fake,
    any_layout=("weight",),
)


@takes(5)
class _NormActConv3x3(torch.autograd.Function):
    """Keeps the norm's input: the convolution's is recomputed from it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, eps: float, slope: float, backend: str
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = norm_act_conv3x3_op(x, weight, eps, slope, backend)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, ctx.slope, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:2]
        if dy is None or not any(wanted):
            return (None,) * 5
        settings = (ctx.slope, ctx.backend, wanted)
        found = first_derivative(_norm_act_gradients, dy, *ctx.saved_tensors, *settings)
        return (*spread(found, wanted), None, None, None)


def _norm_act_gradients(dy: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = rest
    gradients = norm_act_conv3x3_backward_op(dy.contiguous(), *inputs, list(wanted))
    return picked(gradients, wanted)


def norm_act_conv3x3(
    x: Tensor, weight: Tensor, eps: float, slope: float, backend: Backend
) -> Tensor:
    """conv3x3(leaky_relu(InstanceNorm(x), slope), weight) of x (B, C, H, W), by a backend."""
    y: Tensor
    if (formula := backend.formulas.get("norm_act_conv3x3")) is not None:
        y = formula(x, weight, eps, slope)
        return y
    x = x.permute(0, 2, 3, 1).contiguous()
    y = apply(_NormActConv3x3, wants_grad(x, weight), x, weight, eps, slope, backend.name)[0]
    return y.permute(0, 3, 1, 2)
