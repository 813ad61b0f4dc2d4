"""Depthwise convolution and SiLU in one pass over memory, channels last."""

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

_DEEP = 64  # channels of a program
_WIDE = 8  # positions of a row in a tile; backwards all taps' sums of a tile are in registers
_PROGRAMS_PER_PROCESSOR = 8


def depthwise_conv_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """silu(conv(x) + bias), every channel convolved on its own, padded with zeros to x's size.

    x: (B, H, W, D), cast to autocast's dtype under autocast; weight: (D, 1, K, K), K odd; bias:
    (D,). The result is like x and contiguous. Sums are taken in float32 at least.
    """
    _check(x, weight, bias)
    x = x.to(autocast_dtype(x) or x.dtype)
    kernel = weight.shape[-1]
    # The kernels keep all taps in registers.
    if kernels_serve(x) and kernel <= 3:
        out: Tensor = _depthwise_conv_silu(x.contiguous(), weight.contiguous(), bias)
        return out
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    # A view, stored channels last already.
    images = x.contiguous().permute(0, 3, 1, 2)
    out = F.conv2d(images, weight, bias, padding=kernel // 2, groups=x.shape[-1])
    return F.silu(out).permute(0, 2, 3, 1).contiguous()


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, H, W, D)")
    D, kernel = x.shape[-1], weight.shape[-1]
    if weight.shape != (D, 1, kernel, kernel) or kernel % 2 == 0:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected ({D}, 1, K, K) with K odd"
        )
    if bias.shape != (D,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({D},)")


@functools.cache
def _kernels() -> Any:
    from swin_umamba_ops.fused import depthwise_kernels

    return depthwise_kernels


def _cut(x: Tensor) -> tuple[int, int, int]:
    """Blocks of channels, programs for each, and tiles for each program."""
    B, H, W, D = x.shape
    blocks, tiles = -(-D // _DEEP), B * H * -(-W // _WIDE)
    programs = min(tiles, -(-_PROGRAMS_PER_PROCESSOR * processors(x.device) // blocks))
    share = -(-tiles // max(programs, 1))
    return blocks, -(-tiles // max(share, 1)), share


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, backward: bool) -> Tensor:
    y = torch.empty_like(x)
    blocks, programs, share = _cut(x)
    if x.numel():
        launch(
            _kernels().convolve, (blocks, programs), (x, weight, bias, y, *x.shape, share),
            {"BACKWARD": backward, "K": weight.shape[-1], "WIDE": _WIDE, "DEEP": _DEEP},
        )  # fmt: skip
    return y


def _forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _convolve(x, weight, bias, backward=False)


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)


def _backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    taps = weight[0].numel()
    blocks, programs, share = _cut(x)
    dconv = torch.empty_like(x)
    sums = x.new_empty((programs, taps + 1, x.shape[3]), dtype=torch.float32)
    if x.numel():
        launch(
            _kernels().backward_of_activation, (blocks, programs),
            (dy, x, weight, bias, dconv, sums, *x.shape, share),
            {"K": weight.shape[-1], "WIDE": _WIDE, "DEEP": _DEEP},
        )  # fmt: skip
    total = sums.sum(0)
    dweight = total[:-1].t().contiguous().view(weight.shape).to(weight.dtype)
    return _convolve(dconv, weight, bias, backward=True), dweight, total[-1].to(bias.dtype).clone()


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


class _DepthwiseConvSilu(torch.autograd.Function):
    """Keeps the input alone: the convolution is cheaper made again than read."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = _depthwise_conv_silu(*inputs)
        ctx.save_for_backward(*inputs)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...] = _depthwise_conv_silu_backward(
            dy.contiguous(), *ctx.saved_tensors
        )
        return grads


_depthwise_conv_silu = define(
    "depthwise_conv_silu(Tensor x, Tensor weight, Tensor bias) -> Tensor",
    _forward,
    _forward_fake,
    _DepthwiseConvSilu,
)
_depthwise_conv_silu_backward = define(
    "depthwise_conv_silu_backward(Tensor dy, Tensor x, Tensor weight, Tensor bias) "
    "-> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
