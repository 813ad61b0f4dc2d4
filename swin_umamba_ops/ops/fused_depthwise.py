"""Depthwise convolution and SiLU."""

from __future__ import annotations

from swin_umamba_ops.backends._memory import in_rows
from swin_umamba_ops.inputs import DepthwiseConvSiluInputs
from swin_umamba_ops.ops._check import has_shape
from swin_umamba_ops.ops._fused import FusedOp, Outputs


def _check(inputs: DepthwiseConvSiluInputs) -> None:
    x, weight, bias = inputs
    has_shape("x", x, "B", "H", "W", "D")
    width = _width(inputs)
    has_shape("weight", weight, x.shape[3], 1, width, width)
    if width % 2 == 0:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected an odd width")
    if bias is not None:
        has_shape("bias", bias, x.shape[3])


def _outputs(inputs: DepthwiseConvSiluInputs) -> Outputs:
    return ((inputs.x.shape, inputs.x.dtype),)


def _width(inputs: DepthwiseConvSiluInputs) -> int:
    return inputs.weight.shape[-1]


# Half of a projection's channels are read where they are.
depthwise_conv_silu = FusedOp(
    "depthwise_conv_silu", DepthwiseConvSiluInputs, _check, _outputs, size=_width,
    layouts={"x": in_rows},
)  # fmt: skip
