"""Two linear layers with a GELU between them."""

from __future__ import annotations

import math
from typing import Any

from swin_umamba_ops.inputs import MlpGeluInputs
from swin_umamba_ops.ops._check import has_channels, has_shape
from swin_umamba_ops.ops._fused import FusedOp, Outputs, Shape


def _check(inputs: MlpGeluInputs) -> None:
    x, weight1, bias1, weight2, bias2 = inputs
    has_channels("x", x)
    has_shape("weight1", weight1, "E", x.shape[-1])
    has_shape("bias1", bias1, weight1.shape[0])
    has_shape("weight2", weight2, "F", weight1.shape[0])
    has_shape("bias2", bias2, weight2.shape[0])


def _outputs(inputs: MlpGeluInputs) -> Outputs:
    x = inputs.x
    return (((*x.shape[:-1], inputs.weight2.shape[0]), x.dtype),)


def _flops(x: Shape, weight1: Shape, bias1: Shape, weight2: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * weight1[0] * (weight1[1] + weight2[0])


def _backward_flops(dy: Shape, *inputs: Any, **_: Any) -> int:
    """Twice the forward's, as for a matrix product."""
    return 2 * _flops(*inputs)


# Parameters are kept unchanged, and converted to x's dtype in both passes.
mlp_gelu = FusedOp("mlp_gelu", MlpGeluInputs, _check, _outputs, flops=(_flops, _backward_flops))
