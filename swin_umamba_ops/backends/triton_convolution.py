"""3x3 convolutions with few channels by cuDNN and Triton, after an instance norm that the backward
pass recomputes.

cuDNN's forward kernels take two to three times as long as its gradient kernels if the result has
few channels; then the forward pass is computed as the gradient of the mirrored convolution, which
is the same sum of products. The weight's gradient, for which cuDNN has nothing fast in this case,
is a kernel of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.backends import triton_instance_norm
from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._triton_fused import (
    on_its_device,
    processors,
    why_unsupported,
    why_unusable,
)
from swin_umamba_ops.backends.protocols import ALL_WANTED, Gradients
from swin_umamba_ops.backends.triton_kernels import convolution as kernels
from swin_umamba_ops.inputs import Conv3x3Inputs, InstanceNormActInputs, NormActConv3x3Inputs
from swin_umamba_ops.numerics import NO_RESIDUAL

__all__ = [
    "conv3x3_backward",
    "conv3x3_forward",
    "norm_act_conv3x3_backward",
    "norm_act_conv3x3_forward",
    "why_unsupported",
    "why_unusable",
]

# Channels of the result and of x, as measured on an H100: docs/kernels.md.
_MAX_OUT, _MIN_IN = 63, 16
_MAX_IN = 96  # channels of x whose products with dy fit in a program's registers
_16_BIT = (torch.float16, torch.bfloat16)
# Fewer channels of x than _FEW_IN get zeros, except in forward passes of up to _FAST_IN: cuDNN's
# kernels for as many take up to three times as long. On one H200: docs/kernels.md.
_FEW_IN, _FAST_IN = 8, 4
_PROGRAMS_PER_PROCESSOR = 4


def _lacking(x: Tensor) -> int:
    """How many channels x (B, H, W, C) lacks for cuDNN to be fast."""
    return max(_FEW_IN - x.shape[3], 0) if x.dtype in _16_BIT else 0


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, H, W, C) to (B, H, W, E), both contiguous."""
    weight = weight.to(x.dtype)
    zeros = _lacking(x)
    if zeros and x.shape[3] > _FAST_IN:
        x, weight = F.pad(x, (0, zeros)), F.pad(weight, (0, 0, 0, 0, 0, zeros))
    image = x.permute(0, 3, 1, 2)
    with autocast_off(x):
        if weight.dtype in _16_BIT and weight.shape[0] <= _MAX_OUT and weight.shape[1] >= _MIN_IN:
            mirrored = weight.transpose(0, 1).flip(2, 3)
            mirrored = mirrored.contiguous(memory_format=torch.channels_last)
            out = F.conv_transpose2d(image, mirrored, padding=1)
        else:
            # Request channels last, which a single channel would leave open.
            out = F.conv2d(image, weight.contiguous(memory_format=torch.channels_last), padding=1)
    return out.permute(0, 2, 3, 1).contiguous()


def _sums_of_products(dy: Tensor, x: Tensor) -> Tensor:
    """The weight's gradient (E, C, 3, 3) in float32, by our kernel."""
    _, H, W, E = dy.shape
    C, pixels = x.shape[3], dy.numel() // E
    at_a_time = 64 if C <= 64 else 32  # three stages of it fit in any GPU's shared memory
    programs = -(-_PROGRAMS_PER_PROCESSOR * processors(x.device) // 3)
    programs = min(-(-pixels // at_a_time), programs)
    sums = x.new_empty((programs, 3, 3, E, C), dtype=torch.float32)
    columns = [max(16, 1 << (channels - 1).bit_length()) for channels in (C, E)]
    launch(
        kernels.weight_gradient, (3, programs), (dy, x, sums, pixels, H, W, programs),
        {
            "C": C, "E": E, "COLS_C": columns[0], "COLS_E": columns[1], "PIXELS": at_a_time,
            "UPCAST": x.device.type == "cpu",
        },
    )  # fmt: skip
    return sums.sum(0).permute(2, 3, 0, 1)


def _cudnn_gradients(dy: Tensor, x: Tensor, weight: Tensor, *wanted: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight, which has x's dtype; unwanted ones are undefined."""
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dy.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight, None, [1, 1], [1, 1], [1, 1],
        False, [0, 0], 1, [*wanted, False],
    )  # fmt: skip
    return dx, dweight


def _x_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dx (B, H, W, C), contiguous; only the sizes of x matter."""
    dx, _ = _cudnn_gradients(dy, x, weight, True, False)
    return dx.permute(0, 2, 3, 1).contiguous()


def _weight_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dweight, in any dtype and layout; only the sizes of the weight matter."""
    E, C = weight.shape[:2]
    # Our kernel counts pixels in 32 bits.
    ours = x.dtype in _16_BIT and E <= _MAX_OUT and _MIN_IN <= C <= _MAX_IN
    if ours and dy.numel() // E < 2**31:
        return _sums_of_products(dy, x)
    if zeros := _lacking(x):
        padded = F.pad(weight, (0, 0, 0, 0, 0, zeros))
        return _cudnn_gradients(dy, F.pad(x, (0, zeros)), padded, False, True)[1][:, :C]
    return _cudnn_gradients(dy, x, weight, False, True)[1]


def _like(weight: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the weight's dtype and layout."""
    if gradient.dtype == weight.dtype and gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


@on_its_device
def conv3x3_forward(inputs: Conv3x3Inputs) -> Tensor:
    return _convolve(*inputs)


@on_its_device
def conv3x3_backward(
    dy: Tensor, inputs: Conv3x3Inputs, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    x, weight = inputs
    used = weight.to(x.dtype)
    dx = _x_gradient(dy, x, used) if wanted[0] else None
    return dx, _like(weight, _weight_gradient(dy, x, used)) if wanted[1] else None


@on_its_device
def norm_act_conv3x3_forward(inputs: NormActConv3x3Inputs) -> tuple[Tensor, Tensor]:
    x, weight, eps, slope = inputs
    active, stats = triton_instance_norm.instance_norm_act_forward(
        InstanceNormActInputs(x, None, None, None, NO_RESIDUAL, eps, slope)
    )
    return _convolve(active, weight), stats


@on_its_device
def norm_act_conv3x3_backward(
    dy: Tensor, inputs: NormActConv3x3Inputs, stats: Tensor, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    """The convolution's input is recomputed from x."""
    x, weight, _, slope = inputs
    # Only one other map like x at a time: a model's memory peaks in these passes.
    used, dweight = weight.to(x.dtype), None
    if wanted[1]:
        active = triton_instance_norm.normalise(x, stats, slope)
        dweight = _like(weight, _weight_gradient(dy, active, used))
        del active
    if not wanted[0]:
        return None, dweight
    dactive = _x_gradient(dy, x, used)
    return triton_instance_norm.gradient_in_place(dactive, x, stats, slope), dweight
