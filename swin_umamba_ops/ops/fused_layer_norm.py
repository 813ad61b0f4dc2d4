"""Layer norm with an optional gate."""

from __future__ import annotations

from swin_umamba_ops.backends._memory import in_rows
from swin_umamba_ops.inputs import LayerNormInputs
from swin_umamba_ops.ops._check import has_channels, has_shape
from swin_umamba_ops.ops._fused import FusedOp, Outputs


def _check(inputs: LayerNormInputs) -> None:
    x, gate, weight, bias, _, _ = inputs
    has_channels("x", x)
    if gate is not None:
        has_shape("gate", gate, *x.shape)
    has_shape("weight", weight, x.shape[-1])
    has_shape("bias", bias, x.shape[-1])


def _outputs(inputs: LayerNormInputs) -> Outputs:
    return ((inputs.x.shape, inputs.out_dtype),)


# Half of a projection's channels are read where they are.
layer_norm = FusedOp("layer_norm", LayerNormInputs, _check, _outputs, layouts={"gate": in_rows})
