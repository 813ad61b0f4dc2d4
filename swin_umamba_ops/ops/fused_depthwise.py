"""Depthwise convolution and SiLU: its ops, and autograd around them.

x: (B, H, W, D), contiguous; weight: (D, 1, K, K), K odd; bias: (D,) or None.
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
    like_wanted,
    only_wanted,
    picked,
    spread,
    takes,
    wants_grad,
)

_ALL = (True,) * 3


def _kernels(backend: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    has_shape("x", x, "B", "H", "W", "D")
    width = weight.shape[-1]
    has_shape("weight", weight, x.shape[3], 1, width, width)
    if width % 2 == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected an odd width")
    if bias is not None:
        has_shape("bias", bias, x.shape[3])
    return backends.kernels("depthwise_conv_silu", backend, x.device, x.dtype, width)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str = "triton") -> Tensor:
    kernels = _kernels(backend, x, weight, bias)
    if x.numel() == 0:
        return torch.empty_like(x)
    y: Tensor = kernels.forward(x, weight, bias)
    return y


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, backend: str = "triton"
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels = _kernels(backend, x, weight, bias)
    has_shape("dy", dy, *x.shape)
    same_dtype(x.dtype, ("dy",), (dy,))
    inputs, chosen = (x, weight, bias), tuple(wanted or _ALL)
    if x.numel() == 0:
        gradients = [None if t is None else torch.zeros_like(t) for t in inputs]
    else:
        gradients = kernels.backward(dy, *inputs, wanted=chosen)
    return only_wanted(inputs, gradients, chosen)


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted((x, weight, bias), wanted or _ALL)


depthwise_conv_silu_op = define(
    'depthwise_conv_silu(Tensor x, Tensor weight, Tensor? bias, str backend="triton") -> Tensor',
    _forward,
    _forward_fake,
)
depthwise_conv_silu_backward_op = define(
    "depthwise_conv_silu_backward(Tensor dy, Tensor x, Tensor weight, Tensor? bias, "
    'str backend="triton", bool[]? wanted=None) -> (Tensor, Tensor, Tensor)',
    _backward,
    _backward_fake,
)


@takes(4)
class _DepthwiseConvSilu(torch.autograd.Function):
    """Keeps the input alone: to recompute the convolution is cheaper than to read it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, backend: str) -> Tensor:
        y: Tensor = depthwise_conv_silu_op(x, weight, bias, backend)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.backend = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:3]
        if not any(wanted):
            return (None,) * 4
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, ctx.backend, wanted)
        return (*spread(found, wanted), None)


def _gradients(dy: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = rest
    gradients = depthwise_conv_silu_backward_op(dy.contiguous(), *inputs, list(wanted))
    return picked(gradients, wanted)


def depthwise_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, backend: Backend) -> Tensor:
    """silu(conv(x) + bias), like x and contiguous, by a backend."""
    y: Tensor
    if (formula := backend.formulas.get("depthwise_conv_silu")) is not None:
        y = formula(x, weight, bias)
        return y
    y = apply(
        _DepthwiseConvSilu, wants_grad(x, weight, bias), x.contiguous(), weight.contiguous(), bias,
        backend.name,
    )  # fmt: skip
    return y
