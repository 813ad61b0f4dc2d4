"""Depthwise convolution and SiLU by Triton: one pass over memory, channels last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swin_umamba_ops.backends import _triton_fused
from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._memory import addressable_rows
from swin_umamba_ops.backends._triton_fused import on_its_device, processors, why_unusable
from swin_umamba_ops.backends.protocols import ALL_WANTED, Gradients
from swin_umamba_ops.backends.triton_kernels import depthwise as kernels
from swin_umamba_ops.inputs import DepthwiseConvSiluInputs

__all__ = [
    "depthwise_conv_silu_backward",
    "depthwise_conv_silu_forward",
    "why_unsupported",
    "why_unusable",
]

_BLOCK_C = 64  # channels per program
# positions of a row in a tile; the backward pass keeps the sums of all taps in registers
_BLOCK_W = 8
_PROGRAMS_PER_PROCESSOR = 8
_MAX_WIDTH = 3  # maximum filter width: all taps are in registers


def why_unsupported(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """None if the kernels support such tensors and filters of this width, else the reason."""
    if size > _MAX_WIDTH:
        return f"it supports filters up to {_MAX_WIDTH} x {_MAX_WIDTH}, not {size} x {size}"
    return _triton_fused.why_unsupported(device, dtype, size)


def _cut(x: Tensor) -> tuple[int, int, int]:
    """Blocks of channels, programs for each, and tiles for each program."""
    B, H, W, D = x.shape
    blocks, tiles = -(-D // _BLOCK_C), B * H * -(-W // _BLOCK_W)
    programs = min(tiles, -(-_PROGRAMS_PER_PROCESSOR * processors(x.device) // blocks))
    share = -(-tiles // programs)
    return blocks, -(-tiles // share), share


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, backward: bool) -> Tensor:
    x, stride = addressable_rows(x)
    y = x.new_empty(x.shape)
    blocks, programs, share = _cut(x)
    launch(
        kernels.convolve, (blocks, programs), (x, stride, weight, bias, y, *x.shape, share),
        {
            "BACKWARD": backward, "K": weight.shape[-1], "BLOCK_W": _BLOCK_W, "BLOCK_C": _BLOCK_C,
        },
    )  # fmt: skip
    return y


@on_its_device
def depthwise_conv_silu_forward(inputs: DepthwiseConvSiluInputs) -> Tensor:
    return _convolve(*inputs, backward=False)


@on_its_device
def depthwise_conv_silu_backward(
    dy: Tensor, inputs: DepthwiseConvSiluInputs, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    x, weight, bias = inputs
    x, stride = addressable_rows(x)
    taps = weight[0].numel()
    blocks, programs, share = _cut(x)
    dconv = x.new_empty(x.shape)
    sums = x.new_empty((programs, taps + 1, x.shape[3]), dtype=torch.float32)
    launch(
        kernels.backward_of_activation, (blocks, programs),
        (dy, x, stride, weight, bias, dconv, sums, *x.shape, share),
        {"K": weight.shape[-1], "BLOCK_W": _BLOCK_W, "BLOCK_C": _BLOCK_C},
    )  # fmt: skip
    dx = _convolve(dconv, weight, bias, backward=True) if wanted[0] else None
    dweight, dbias = None, None
    if wanted[1] or wanted[2]:
        total = sums.sum(0)
        dweight = total[:-1].t().contiguous().view(weight.shape).to(weight.dtype)
        if bias is not None:
            dbias = total[-1].to(bias.dtype).clone()
    return dx, dweight, dbias
