"""Layer norm, gated if wanted: its ops, and autograd around them.

x, gate: (..., C), contiguous; weight, bias: (C,).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.ops._check import has_shape
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


def _kernels(backend: str, x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor) -> Any:
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (..., C) with C > 0")
    if gate is not None:
        has_shape("gate", gate, *x.shape)
    has_shape("weight", weight, x.shape[-1])
    has_shape("bias", bias, x.shape[-1])
    return backends.kernels("layer_norm", backend, x.device, x.dtype, 0)


def _forward(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
    backend: str = "triton",
) -> Tensor:
    kernels = _kernels(backend, x, gate, weight, bias)
    if x.numel() == 0:
        return torch.empty_like(x, dtype=out_dtype)
    y: Tensor = kernels.forward(x, gate, weight, bias, eps, out_dtype)
    return y


def _forward_fake(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
    backend: str = "triton",
) -> Tensor:
    return torch.empty_like(x, dtype=out_dtype, memory_format=torch.contiguous_format)


def _backward(
    dy: Tensor,
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    kernels = _kernels(backend, x, gate, weight, bias)
    has_shape("dy", dy, *x.shape)
    inputs, chosen = (x, gate, weight, bias), tuple(wanted or _ALL)
    if x.numel() == 0:
        gradients = [None if t is None else torch.zeros_like(t) for t in inputs]
    else:
        gradients = kernels.backward(dy, *inputs, eps, wanted=chosen)
    return only_wanted(inputs, gradients, chosen)


def _backward_fake(
    dy: Tensor,
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    backend: str = "triton",
    wanted: list[bool] | None = None,
) -> tuple[Tensor, ...]:
    return like_wanted((x, gate, weight, bias), wanted or _ALL)


layer_norm_op = define(
    "layer_norm(Tensor x, Tensor? gate, Tensor weight, Tensor bias, float eps, "
    'ScalarType out_dtype, str backend="triton") -> Tensor',
    _forward,
    _forward_fake,
)
layer_norm_backward_op = define(
    "layer_norm_backward(Tensor dy, Tensor x, Tensor? gate, Tensor weight, Tensor bias, float eps, "
    'str backend="triton", bool[]? wanted=None) -> (Tensor, Tensor, Tensor, Tensor)',
    _backward,
    _backward_fake,
)


@takes(7)
class _LayerNorm(torch.autograd.Function):
    """Keeps the inputs alone: a row is read again anyway, and its mean with it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        out_dtype: torch.dtype,
        backend: str,
    ) -> Tensor:
        y: Tensor = layer_norm_op(x, gate, weight, bias, eps, out_dtype, backend)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.eps, _, ctx.backend = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:4]
        if not any(wanted):
            return (None,) * 7
        found = first_derivative(_gradients, dy, *ctx.saved_tensors, ctx.eps, ctx.backend, wanted)
        return (*spread(found, wanted), None, None, None)


def _gradients(dy: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *inputs, wanted = rest
    gradients = layer_norm_backward_op(dy.contiguous(), *inputs, list(wanted))
    return picked(gradients, wanted)


def layer_norm(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
    backend: Backend,
) -> Tensor:
    """LayerNorm(x) * silu(gate), of x's shape, in out_dtype, by a backend."""
    y: Tensor
    if (formula := backend.formulas.get("layer_norm")) is not None:
        y = formula(x, gate, weight, bias, eps, out_dtype)
        return y
    gate = None if gate is None else gate.contiguous()
    y = apply(
        _LayerNorm, wants_grad(x, gate, weight, bias), x.contiguous(), gate, weight, bias, eps,
        out_dtype, backend.name,
    )  # fmt: skip
    return y
