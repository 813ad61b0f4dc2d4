"""3x3 convolutions of few channels, after an instance norm that is made again in the backward pass.

cuDNN's forward kernels take two to three times as long as its gradient kernels where the result
has few channels; the forward pass is then asked for as the gradient of the mirrored convolution,
which is the same sum of products. The weight's gradient, for which cuDNN has nothing fast there, is
a kernel of ours.
"""

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
from swin_umamba_ops.fused.instance_norm import (
    NO_RESIDUAL,
    instance_norm_act,
    norm_act_gradient_in_place,
    normalise,
)
from swin_umamba_ops.kept_kernels import launch

# Channels of the result and of x, as measured on an H100: benchmarks/NOTES.md.
_FEW, _ENOUGH = 64, 16
_HALVES = (torch.float16, torch.bfloat16)
_MOST = 96  # channels of x whose products with dy's a program's registers hold
_PROGRAMS_PER_PROCESSOR = 4


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """conv2d(x, weight, padding=1), whichever of cuDNN's kernels is the fastest.

    x: (B, C, H, W), fastest in channels_last; weight: (E, C, 3, 3). The result (B, E, H, W) has
    autocast's dtype under autocast, else x's.
    """
    _check(x, weight)
    x = _cast(x, weight)
    if kernels_serve(x):
        out: Tensor = _conv3x3(x.permute(0, 2, 3, 1).contiguous(), weight).permute(0, 3, 1, 2)
        return out
    return F.conv2d(x, weight, padding=1)


def norm_act_conv3x3(x: Tensor, weight: Tensor, *, eps: float = 1e-5, slope: float = 1.0) -> Tensor:
    """conv3x3(leaky_relu(InstanceNorm(x), slope), weight); keeps x alone for the backward pass.

    Shapes and dtypes are those of `conv3x3`; the norm has no parameters. As in PyTorch one position
    alone is an error: it has no variance.
    """
    _check(x, weight)
    if x.shape[2] * x.shape[3] <= 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected more than one position")
    x = _cast(x, weight)
    if kernels_serve(x):
        y, _ = _norm_act_conv3x3(x.permute(0, 2, 3, 1).contiguous(), weight, eps, slope)
        out: Tensor = y.permute(0, 3, 1, 2)
        return out
    return F.conv2d(instance_norm_act(x, eps=eps, slope=slope), weight, padding=1)


def _check(x: Tensor, weight: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, C, H, W)")
    if weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (E, {x.shape[1]}, 3, 3)"
        )


def _cast(x: Tensor, weight: Tensor) -> Tensor:
    """x in the dtype to work in. The ops bring the weight to it, and again in the backward pass, so
    that the weight alone is kept until then."""
    dtype = autocast_dtype(x)
    if dtype is not None:
        return x.to(dtype)
    if x.dtype != weight.dtype:
        raise ValueError(f"weight has dtype {weight.dtype}, expected x's {x.dtype}")
    return x


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """x (B, H, W, C) to (B, H, W, E), both contiguous."""
    image, weight = x.permute(0, 3, 1, 2), weight.to(x.dtype)
    if weight.dtype in _HALVES and weight.shape[0] < _FEW and weight.shape[1] >= _ENOUGH:
        mirrored = weight.transpose(0, 1).flip(2, 3).contiguous(memory_format=torch.channels_last)
        out = F.conv_transpose2d(image, mirrored, padding=1)
    else:
        # Channels last also where a single channel leaves the layout open.
        out = F.conv2d(image, weight.contiguous(memory_format=torch.channels_last), padding=1)
    return out.permute(0, 2, 3, 1).contiguous()


@functools.cache
def _kernels() -> Any:
    from swin_umamba_ops.fused import convolution_kernels

    return convolution_kernels


def _sums_of_products(dy: Tensor, x: Tensor) -> Tensor:
    """The weight's gradient (E, C, 3, 3) in float32, by our kernel."""
    _, H, W, E = dy.shape
    C, pixels = x.shape[3], dy.numel() // E
    at_a_time = 64 if C <= 64 else 32  # three stages of it fit in any GPU's shared memory
    programs = -(-_PROGRAMS_PER_PROCESSOR * processors(x.device) // 3)
    programs = min(-(-pixels // at_a_time), programs)
    sums = x.new_empty((programs, 3, 3, E, C), dtype=torch.float32)
    if pixels:
        columns = [max(16, 1 << (channels - 1).bit_length()) for channels in (C, E)]
        launch(
            _kernels().weight_gradient, (3, programs), (dy, x, sums, pixels, H, W, programs),
            {
                "C": C, "E": E, "COLS_C": columns[0], "COLS_E": columns[1], "PIXELS": at_a_time,
                "WIDE": x.device.type == "cpu",
            },
        )  # fmt: skip
    return sums.sum(0).permute(2, 3, 0, 1)


def _cudnn_gradients(dy: Tensor, x: Tensor, weight: Tensor, *wanted: bool) -> tuple[Tensor, Tensor]:
    """By x and by the weight, which has x's dtype; what is not wanted is undefined."""
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dy.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), weight, None, [1, 1], [1, 1], [1, 1],
        False, [0, 0], 1, [*wanted, False],
    )  # fmt: skip
    return dx, dweight


def _x_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dx (B, H, W, C), contiguous; of x the sizes count alone."""
    dx, _ = _cudnn_gradients(dy, x, weight, True, False)
    return dx.permute(0, 2, 3, 1).contiguous()


def _weight_gradient(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dweight, in whichever dtype and layout it comes; of the weight the sizes count alone."""
    E, C = weight.shape[:2]
    # Our kernel counts pixels in 32 bits.
    ours = kernels_serve(x) and x.dtype in _HALVES and E < _FEW and _ENOUGH <= C <= _MOST
    if ours and dy.numel() // E < 2**31:
        return _sums_of_products(dy, x)
    return _cudnn_gradients(dy, x, weight, False, True)[1]


def _like(weight: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in the weight's dtype and layout."""
    if gradient.dtype == weight.dtype and gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    used = weight.to(x.dtype)
    return _x_gradient(dy, x, used), _like(weight, _weight_gradient(dy, x, used))


def _fake(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:3], weight.shape[0]))


def _backward_fake(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = _conv3x3(x, weight)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor] = _conv3x3_backward(dy.contiguous(), *ctx.saved_tensors)
        return gradients


def _norm_act_forward(x: Tensor, weight: Tensor, eps: float, slope: float) -> tuple[Tensor, Tensor]:
    norm = torch.ops.swin_umamba.instance_norm_act.default
    active, stats = norm(x, None, None, None, NO_RESIDUAL, eps, slope)
    return _convolve(active, weight), stats


def _norm_act_fake(x: Tensor, weight: Tensor, eps: float, slope: float) -> tuple[Tensor, Tensor]:
    stats = x.new_empty((2, x.shape[0], x.shape[3]), dtype=torch.float32)
    return _fake(x, weight), stats


def _norm_act_backward(
    dy: Tensor, x: Tensor, weight: Tensor, stats: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    # One map like x beside it at a time: these passes are where a model's memory peaks.
    used = weight.to(x.dtype)
    dweight = _like(weight, _weight_gradient(dy, normalise(x, stats, slope), used))
    dactive = _x_gradient(dy, x, used)
    return norm_act_gradient_in_place(dactive, x, stats, slope), dweight


def _norm_act_backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, stats: Tensor, slope: float
) -> tuple[Tensor, Tensor]:
    return _backward_fake(dy, x, weight)


class _NormActConv3x3(torch.autograd.Function):
    """Keeps the norm's input: the convolution's is made from it again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, slope: float
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, stats = _norm_act_conv3x3(x, weight, eps, slope)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(stats)
        ctx.save_for_backward(x, weight, stats)
        ctx.slope = slope
        return y, stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 4
        dx, dweight = _norm_act_conv3x3_backward(dy.contiguous(), *ctx.saved_tensors, ctx.slope)
        return dx, dweight, None, None


_conv3x3 = define("conv3x3(Tensor x, Tensor weight) -> Tensor", _convolve, _fake, _Conv3x3)
_conv3x3_backward = define(
    "conv3x3_backward(Tensor dy, Tensor x, Tensor weight) -> (Tensor, Tensor)",
    _gradients,
    _backward_fake,
)
_norm_act_conv3x3 = define(
    "norm_act_conv3x3(Tensor x, Tensor weight, float eps, float slope) -> (Tensor, Tensor)",
    _norm_act_forward,
    _norm_act_fake,
    _NormActConv3x3,
)
_norm_act_conv3x3_backward = define(
    "norm_act_conv3x3_backward(Tensor dy, Tensor x, Tensor weight, Tensor stats, "
    "float slope) -> (Tensor, Tensor)",
    _norm_act_backward,
    _norm_act_backward_fake,
)
