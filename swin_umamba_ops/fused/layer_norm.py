"""Layer norm, gated if wanted: LayerNorm(x) * silu(gate) in one pass over memory."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from swin_umamba_ops.fused._registration import (
    autocast_dtype,
    define,
    kernels_serve,
    processors,
)
from swin_umamba_ops.kept_kernels import launch
from swin_umamba_ops.numerics import state_dtype

_TILE = 2048  # values a program holds: 16 a thread
_PROGRAMS_PER_PROCESSOR = 4


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, gate: Tensor | None = None
) -> Tensor:
    """LayerNorm over the last axis, computed in float32 at least, times silu(gate) if given.

    x, gate: (..., C), any floating dtypes; weight, bias: (C,). The result has autocast's dtype
    under autocast, else gate's, or x's without one.
    """
    _check(x, weight, bias, gate)
    out_dtype = autocast_dtype(x) or (x if gate is None else gate).dtype
    if kernels_serve(x):
        out: Tensor = _layer_norm(
            x.contiguous(),
            None if gate is None else gate.contiguous(),
            weight,
            bias,
            eps,
            out_dtype,
        )
        return out
    wide = state_dtype(x.dtype)
    out = F.layer_norm(x.to(wide), weight.shape, weight.to(wide), bias.to(wide), eps)
    if gate is not None:
        out = out * F.silu(gate)
    return out.to(out_dtype)


def _check(x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor | None) -> None:
    if x.ndim == 0:
        raise ValueError("x is a scalar, expected at least one axis (..., C)")
    for name, t in (("weight", weight), ("bias", bias)):
        if t.shape != x.shape[-1:]:
            raise ValueError(f"{name} has shape {tuple(t.shape)}, expected {tuple(x.shape[-1:])}")
    if gate is not None and gate.shape != x.shape:
        raise ValueError(f"gate has shape {tuple(gate.shape)}, expected x's {tuple(x.shape)}")


def _tile(channels: int) -> tuple[int, int]:
    """Rows and columns of a program."""
    columns = 1 << (channels - 1).bit_length()
    return max(1, _TILE // columns), columns


@functools.cache
def _kernels() -> Any:
    from swin_umamba_ops.fused import layer_norm_kernels

    return layer_norm_kernels


def _forward(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
) -> Tensor:
    y = torch.empty_like(x, dtype=out_dtype)
    C = x.shape[-1]
    M = x.numel() // C
    rows, columns = _tile(C)
    if M:
        launch(
            _kernels().forward, ((M + rows - 1) // rows,), (x, gate, weight, bias, y, M, C, eps),
            {"GATED": gate is not None, "ROWS": rows, "COLS": columns},
        )  # fmt: skip
    return y


def _forward_fake(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
) -> Tensor:
    return torch.empty_like(x, dtype=out_dtype)


def _backward(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dx, dgate, dweight, dbias = _backward_fake(dy, x, gate, weight, bias, eps)
    C = x.shape[-1]
    M = x.numel() // C
    rows, columns = _tile(C)
    programs = min((M + rows - 1) // rows, _PROGRAMS_PER_PROCESSOR * processors(x.device))
    sums = x.new_empty((2, programs, C), dtype=torch.float32)
    if M:
        launch(
            _kernels().backward, (programs,),
            (dy, x, gate, weight, bias, dx, dgate, sums, M, C, eps, programs),
            {"GATED": gate is not None, "ROWS": rows, "COLS": columns},
        )  # fmt: skip
    dweight, dbias = sums.sum(1).unbind()
    return dx, dgate, dweight.to(weight.dtype), dbias.clone().to(bias.dtype)


def _backward_fake(
    dy: Tensor, x: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dgate = x.new_empty(0) if gate is None else torch.empty_like(gate)
    return torch.empty_like(x), dgate, torch.empty_like(weight), torch.empty_like(bias)


class _LayerNorm(torch.autograd.Function):
    """Keeps the inputs alone: a row is read again anyway, and its mean with it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = _layer_norm(*inputs)
        ctx.save_for_backward(*inputs[:4])
        ctx.eps = inputs[4]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, weight, bias = ctx.saved_tensors
        dx, dgate, dweight, dbias = _layer_norm_backward(
            dy.contiguous(), x, gate, weight, bias, ctx.eps
        )
        return dx, None if gate is None else dgate, dweight, dbias, None, None


_layer_norm = define(
    "layer_norm(Tensor x, Tensor? gate, Tensor weight, Tensor bias, float eps, "
    "ScalarType out_dtype) -> Tensor",
    _forward,
    _forward_fake,
    _LayerNorm,
)
_layer_norm_backward = define(
    "layer_norm_backward(Tensor dy, Tensor x, Tensor? gate, Tensor weight, Tensor bias, float eps) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
