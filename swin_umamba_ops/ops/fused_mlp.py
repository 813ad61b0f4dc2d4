"""Two linear layers with a GELU between them: their ops, and autograd around them.

x: (..., C), contiguous; weight1: (E, C); bias1: (E,); weight2: (F, E); bias2: (F,). Parameters are
brought to x's dtype, and again in the backward pass, so that they alone are kept until then.
"""

from __future__ import annotations

import math
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
    like_wanted,
    only_wanted,
    picked,
    spread,
    takes,
    wants_grad,
)

_ALL = (True,) * 5
Shape = tuple[int, ...]


def _kernels(
    backend: str, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
) -> Any:
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (..., C) with C > 0")
    has_shape("weight1", weight1, "E", x.shape[-1])
    has_shape("bias1", bias1, weight1.shape[0])
    has_shape("weight2", weight2, "F", weight1.shape[0])
    has_shape("bias2", bias2, weight2.shape[0])
    return backends.kernels("mlp_gelu", backend, x.device, x.dtype, 0)


def _output(x: Tensor, weight2: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight2.shape[0]))


def _forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    backend: str = "triton",
) -> Tensor:
    kernels = _kernels(backend, x, weight1, bias1, weight2, bias2)
    if x.numel() == 0:
        return _output(x, weight2)
    y: Tensor = kernels.forward(x, weight1, bias1, weight2, bias2)
    return y


def _forward_fake(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    backend: str = "triton",
) -> Tensor:
    return _output(x, weight2)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    inputs, chosen = (x, weight1, bias1, weight2, bias2), tuple(wanted or _ALL)
    kernels = _kernels(backend, *inputs)
    has_shape("dy", dy, *x.shape[:-1], weight2.shape[0])
    same_dtype(x.dtype, ("dy",), (dy,))
    if x.numel() == 0:
        gradients = tuple(torch.zeros_like(t) for t in inputs)
    else:
        gradients = kernels.backward(dy, *inputs, wanted=chosen)
    return only_wanted(inputs, gradients, chosen)


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted((x, weight1, bias1, weight2, bias2), wanted or _ALL)


def _flops(x: Shape, weight1: Shape, bias1: Shape, weight2: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * weight1[0] * (weight1[1] + weight2[0])


def _backward_flops(dy: Shape, *inputs: Any, **_: Any) -> int:
    """Twice the forward's, as for a matrix product."""
    return 2 * _flops(*inputs)


mlp_gelu_op = define(
    "mlp_gelu(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, "
    'str backend="triton") -> Tensor',
    _forward,
    _forward_fake,
    _flops,
)
mlp_gelu_backward_op = define(
    "mlp_gelu_backward(Tensor dy, Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, "
    'Tensor bias2, str backend="triton", bool[]? wanted=None) '
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    _backward_flops,
)


@takes(6)
class _MlpGelu(torch.autograd.Function):
    """Keeps the inputs alone: to recompute the hidden layer is cheaper than to read it twice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, backend: str
    ) -> Tensor:
        y: Tensor = mlp_gelu_op(x, weight1, bias1, weight2, bias2, backend)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.backend = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:5]
        if not any(wanted):
            return (None,) * 6
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, ctx.backend, wanted)
        return (*spread(found, wanted), None)


def _gradients(dy: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = rest
    gradients = mlp_gelu_backward_op(dy.contiguous(), *inputs, list(wanted))
    return picked(gradients, wanted)


def mlp_gelu(
    x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, backend: Backend
) -> Tensor:
    """gelu(x @ weight1.T + bias1) @ weight2.T + bias2, (..., F), by a backend."""
    y: Tensor
    if (formula := backend.formulas.get("mlp_gelu")) is not None:
        y = formula(x, weight1, bias1, weight2, bias2)
        return y
    y = apply(
        _MlpGelu, wants_grad(x, weight1, bias1, weight2, bias2), x.contiguous(), weight1, bias1,
        weight2, bias2, backend.name,
    )  # fmt: skip
    return y
