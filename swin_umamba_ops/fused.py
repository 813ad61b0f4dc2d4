"""The operations around the scan in a block, each in one or two passes over memory, channels last:
check, cast, and call a backend.

On GPUs these are Triton kernels behind torch.library ops, elsewhere PyTorch's own operators. All
accept `backend`: "auto", or the name of one that has them ("triton", "pytorch", "export",
"reference"), which then never falls back. Second derivatives raise with "triton".
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops import autocast, backends
from swin_umamba_ops.inputs import (
    Conv3x3Inputs,
    DepthwiseConvSiluInputs,
    InstanceNormActInputs,
    LayerNormInputs,
    MlpGeluInputs,
    NormActConv3x3Inputs,
    SegmentationSumsInputs,
)
from swin_umamba_ops.numerics import NO_RESIDUAL, NORMALISED_RESIDUAL, PLAIN_RESIDUAL
from swin_umamba_ops.ops import (
    fused_convolution,
    fused_depthwise,
    fused_instance_norm,
    fused_layer_norm,
    fused_mlp,
)
from swin_umamba_ops.ops import segmentation_sums as _segmentation_sums
from swin_umamba_ops.resolving import resolved

__all__ = [
    "conv3x3",
    "depthwise_conv_silu",
    "fused_backend",
    "instance_norm_act",
    "layer_norm",
    "mlp_gelu",
    "norm_act_conv3x3",
    "segmentation_sums",
]


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Autocast's dtype on x's device, or None outside of autocast and for float64."""
    return None if x.dtype == torch.float64 else autocast.autocast_dtype(x)


def fused_backend(scan_backend: str) -> str:
    """The backend for these ops, given the backend of a scan: the same if it has them, as "pytorch"
    does, otherwise "auto", as for "cuda" and "cpu"."""
    found = backends.BACKENDS.get(scan_backend)
    return scan_backend if found is not None and found.has("layer_norm") else backends.AUTO


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    gate: Tensor | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    """LayerNorm over the last axis, computed in float32 at least, times silu(gate) if given.

    x, gate: (..., C), any floating dtypes; weight, bias: (C,). The result has autocast's dtype
    under autocast, otherwise gate's, or x's without a gate.
    """
    if x.ndim == 0:
        raise ValueError("x is a scalar, expected at least one axis (..., C)")
    for name, t in (("weight", weight), ("bias", bias)):
        if t.shape != x.shape[-1:]:
            raise ValueError(f"{name} has shape {tuple(t.shape)}, expected {tuple(x.shape[-1:])}")
    if gate is not None and gate.shape != x.shape:
        raise ValueError(f"gate has shape {tuple(gate.shape)}, expected x's {tuple(x.shape)}")
    out_dtype = _autocast_dtype(x) or (x if gate is None else gate).dtype
    served = resolved("layer_norm", backend, x.device, x.dtype)
    inputs = LayerNormInputs(x, gate, weight, bias, eps, out_dtype)
    return fused_layer_norm.layer_norm(inputs, served)


def depthwise_conv_silu(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, backend: str = "auto"
) -> Tensor:
    """silu(conv(x) + bias), with a separate filter per channel, zero-padded to x's size.

    x: (B, H, W, D), cast to autocast's dtype under autocast; weight: (D, 1, K, K), K odd; bias:
    (D,) or None. The result is like x and contiguous. Sums are float32 at least.
    """
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, H, W, D)")
    D, kernel = x.shape[-1], weight.shape[-1]
    if weight.shape != (D, 1, kernel, kernel) or kernel % 2 == 0:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected ({D}, 1, K, K) with K odd"
        )
    if bias is not None and bias.shape != (D,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected ({D},)")
    x = x.to(_autocast_dtype(x) or x.dtype)
    served = resolved("depthwise_conv_silu", backend, x.device, x.dtype, kernel)
    return fused_depthwise.depthwise_conv_silu(DepthwiseConvSiluInputs(x, weight, bias), served)


def mlp_gelu(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """gelu(x @ weight1.T + bias1) @ weight2.T + bias2, with the exact GELU; keeps only x for the
    backward pass, which recomputes the hidden layer.

    x: (..., C), cast to autocast's dtype under autocast; weight1: (E, C); bias1: (E,); weight2:
    (F, E); bias2: (F,), of any floating dtypes. The result (..., F) has x's dtype or autocast's.
    """
    if x.ndim == 0:
        raise ValueError("x is a scalar, expected at least one axis (..., C)")
    if weight1.ndim != 2 or weight1.shape[1] != x.shape[-1]:
        raise ValueError(f"weight1 has shape {tuple(weight1.shape)}, expected (E, {x.shape[-1]})")
    if weight2.ndim != 2 or weight2.shape[1] != weight1.shape[0]:
        raise ValueError(
            f"weight2 has shape {tuple(weight2.shape)}, expected (F, {weight1.shape[0]})"
        )
    for name, bias, weight in (("bias1", bias1, weight1), ("bias2", bias2, weight2)):
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(bias.shape)}, expected ({weight.shape[0]},)")
    x = x.to(_autocast_dtype(x) or x.dtype)
    served = resolved("mlp_gelu", backend, x.device, x.dtype)
    return fused_mlp.mlp_gelu(MlpGeluInputs(x, weight1, bias1, weight2, bias2), served)


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    normalise_residual: bool = False,
    eps: float = 1e-5,
    slope: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """leaky_relu(InstanceNorm(x) * weight + bias + residual, slope).

    x, residual: (B, C, H, W), of the same floating dtype, fastest in channels_last; weight, bias:
    (C,), both or neither. normalise_residual: first apply an instance norm without parameters to
    the residual. slope 1: no activation. The result is like x; sums are float32 at least. As in
    PyTorch, a single position is an error: it has no variance.
    """
    _check_positions(x)
    if (weight is None) != (bias is None):
        raise ValueError("weight and bias: got one of them, expected both or neither")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != (x.shape[1],):
            raise ValueError(f"{name} has shape {tuple(t.shape)}, expected ({x.shape[1]},)")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(
            f"residual is {tuple(residual.shape)} of {residual.dtype}, expected "
            f"{tuple(x.shape)} of {x.dtype} like x"
        )
    kind = NORMALISED_RESIDUAL if normalise_residual else PLAIN_RESIDUAL
    if residual is None:
        kind = NO_RESIDUAL
    served = resolved("instance_norm_act", backend, x.device, x.dtype)
    inputs = InstanceNormActInputs(x, weight, bias, residual, kind, eps, slope)
    return fused_instance_norm.instance_norm_act(inputs, served)


def conv3x3(x: Tensor, weight: Tensor, *, backend: str = "auto") -> Tensor:
    """conv2d(x, weight, padding=1), by whichever of cuDNN's kernels is fastest.

    x: (B, C, H, W), fastest in channels_last; weight: (E, C, 3, 3). The result (B, E, H, W) has
    autocast's dtype under autocast, else x's.
    """
    x = _checked_convolution(x, weight)
    served = resolved("conv3x3", backend, x.device, x.dtype)
    return fused_convolution.conv3x3(Conv3x3Inputs(x, weight), served)


def norm_act_conv3x3(
    x: Tensor, weight: Tensor, *, eps: float = 1e-5, slope: float = 1.0, backend: str = "auto"
) -> Tensor:
    """conv3x3(leaky_relu(InstanceNorm(x), slope), weight); keeps only x for the backward pass.

    Shapes and dtypes are those of `conv3x3`; the norm has no parameters. As in PyTorch, a single
    position is an error: it has no variance.
    """
    x = _checked_convolution(x, weight)
    _check_positions(x)
    served = resolved("norm_act_conv3x3", backend, x.device, x.dtype)
    inputs = NormActConv3x3Inputs(x, weight, eps, slope)
    return fused_convolution.norm_act_conv3x3(inputs, served)


def segmentation_sums(logits: Tensor, target: Tensor, *, backend: str = "auto") -> Tensor:
    """The sums needed for soft Dice and cross-entropy of softmax probabilities p, for each image.

    logits: (B, C, H, W), C at least 2, fastest contiguous or in channels_last; target: (B, H, W)
    integers, a class, or -1 where unannotated. The result is (B, 2 * C), float32 at least: the sum
    of -log p of the true class over the annotated pixels; their number; for each class c but the
    first, the sum of p[c] where it is true; and for each, the sum of p[c] over the annotated pixels
    plus the number that are of class c. Invalid labels raise, or make the first sum NaN.
    """
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(f"logits has shape {tuple(logits.shape)}, expected (B, C > 1, H, W)")
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(f"target has shape {tuple(target.shape)}, expected {expected}")
    if target.is_floating_point() or target.is_complex():
        raise TypeError(f"target has dtype {target.dtype}, expected whole numbers")
    size = logits.shape[1]
    served = resolved("segmentation_sums", backend, logits.device, logits.dtype, size)
    inputs = SegmentationSumsInputs(logits, target.long())
    return _segmentation_sums.segmentation_sums(inputs, served)


def _check_positions(x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, C, H, W)")
    if x.shape[2] * x.shape[3] <= 1:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected more than one position")


def _checked_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """x in the working dtype; ValueError unless x and weight match."""
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected four axes (B, C, H, W)")
    if weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (E, {x.shape[1]}, 3, 3)"
        )
    dtype = _autocast_dtype(x)
    if dtype is not None:
        return x.to(dtype)
    if x.dtype != weight.dtype:
        raise ValueError(f"weight has dtype {weight.dtype}, expected x's {x.dtype}")
    return x
