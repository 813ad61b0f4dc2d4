"""3x3 convolutions, alone or after an instance norm and leaky ReLU."""

from __future__ import annotations

import torch

from swin_umamba_ops.inputs import Conv3x3Inputs, NormActConv3x3Inputs
from swin_umamba_ops.ops._check import has_shape
from swin_umamba_ops.ops._fused import FusedOp, Outputs, any_layout


def _check(inputs: Conv3x3Inputs | NormActConv3x3Inputs) -> None:
    has_shape("x", inputs.x, "B", "H", "W", "C")
    has_shape("weight", inputs.weight, "E", inputs.x.shape[3], 3, 3)


def _outputs(inputs: Conv3x3Inputs | NormActConv3x3Inputs) -> Outputs:
    x, weight = inputs[:2]
    return (((*x.shape[:3], weight.shape[0]), x.dtype),)


def _with_statistics(inputs: NormActConv3x3Inputs) -> Outputs:
    """The norm's mean, and the reciprocal of its deviation."""
    B, _, _, C = inputs.x.shape
    return (*_outputs(inputs), ((2, B, C), torch.float32))


# The weight is kept unchanged, and converted to x's dtype and the kernels' layout in both passes.
conv3x3 = FusedOp(
    "conv3x3", Conv3x3Inputs, _check, _outputs, images=("x",), layouts={"weight": any_layout}
)
norm_act_conv3x3 = FusedOp(
    "norm_act_conv3x3", NormActConv3x3Inputs, _check, _with_statistics, statistics=True,
    images=("x",), layouts={"weight": any_layout},
)  # fmt: skip
