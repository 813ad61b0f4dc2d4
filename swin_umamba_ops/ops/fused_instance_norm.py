"""Instance norm, residual and leaky ReLU."""

from __future__ import annotations

import torch

from swin_umamba_ops.inputs import InstanceNormActInputs
from swin_umamba_ops.numerics import NO_RESIDUAL, NORMALISED_RESIDUAL
from swin_umamba_ops.ops._check import has_shape, same_dtype
from swin_umamba_ops.ops._fused import FusedOp, Outputs, any_layout


def _check(inputs: InstanceNormActInputs) -> None:
    x, weight, bias, residual, kind, _, _ = inputs
    has_shape("x", x, "B", "H", "W", "C")
    if (weight is None) != (bias is None):
        raise ValueError("weight and bias: got one of them, expected both or neither")
    for name, t in (("weight", weight), ("bias", bias)):
        if t is not None:
            has_shape(name, t, x.shape[3])
    if (residual is None) != (kind == NO_RESIDUAL) or not 0 <= kind <= NORMALISED_RESIDUAL:
        raise ValueError(f"kind is {kind}, which does not fit the residual")
    if residual is not None:
        has_shape("residual", residual, *x.shape)
        same_dtype(x.dtype, ("residual",), (residual,))


def _outputs(inputs: InstanceNormActInputs) -> Outputs:
    """Statistics: mean and reciprocal deviation of x, then of a residual that is normalized."""
    x = inputs.x
    rows = 4 if inputs.kind == NORMALISED_RESIDUAL else 2
    return (x.shape, x.dtype), ((rows, x.shape[0], x.shape[3]), torch.float32)


# The gradient of a part of a concatenation is strided; kernels read it directly.
instance_norm_act = FusedOp(
    "instance_norm_act", InstanceNormActInputs, _check, _outputs, statistics=True,
    images=("x", "residual"), layouts={"dy": any_layout},
)  # fmt: skip
