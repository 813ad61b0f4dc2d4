"""The inputs of the ops as records, which are passed through all layers unchanged.

Letters as in functional.py: B batch, C and D channels, H, W, L = H * W, N states, R ranks, G
groups.
A record's tensors come first, then its settings.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SS2DArguments(NamedTuple):
    """Inputs of the public ss2d. Parameters are float32 or of x's dtype."""

    x: Tensor  # (B, D, H, W)
    x_proj_weight: Tensor  # (4, R + 2N, D)
    dt_projs_weight: Tensor  # (4, D, R)
    dt_projs_bias: Tensor  # (4, D)
    A_logs: Tensor  # (4 * D, N)
    Ds: Tensor  # (4 * D,)


class SS2DInputs(NamedTuple):
    """Inputs of the ops and kernels of ss2d, after the projection of x.

    x, proj and dt_projs_weight have one dtype, the others the state's: float64 with float64 x,
    float32 with all others.
    """

    x: Tensor  # (B, H, W, D)
    proj: Tensor  # (B, H, W, 4, R + 2N): dt's R values, Bs and Cs
    dt_projs_weight: Tensor  # (4, D, R)
    dt_projs_bias: Tensor  # (4, D)
    A_logs: Tensor  # (4 * D, N)
    Ds: Tensor  # (4 * D,)


class SS2DWanted(NamedTuple):
    """Which gradients of SS2DInputs are wanted."""

    x: bool = True
    proj: bool = True
    dt_projs_weight: bool = True
    dt_projs_bias: bool = True
    A_logs: bool = True
    Ds: bool = True


class ScanInputs(NamedTuple):
    """Inputs of selective_scan. In ops and kernels u, delta, Bs and Cs have one dtype and the
    others the state's, as in SS2DInputs."""

    u: Tensor  # (B, D, L)
    delta: Tensor  # (B, D, L)
    A: Tensor  # (D, N)
    Bs: Tensor  # (B, G, N, L): channel d is in group d // (D // G)
    Cs: Tensor  # like Bs
    Ds: Tensor | None = None  # (D,)
    delta_bias: Tensor | None = None  # (D,)
    delta_softplus: bool = False

    @property
    def tensors(
        self,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Everything but the flag: the inputs with gradients."""
        return self[:7]


class ScanWanted(NamedTuple):
    """Which gradients of ScanInputs are wanted."""

    u: bool = True
    delta: bool = True
    A: bool = True
    Bs: bool = True
    Cs: bool = True
    Ds: bool = True
    delta_bias: bool = True


ALL_SS2D = SS2DWanted()
ALL_SCAN = ScanWanted()


# ---- fused ops: shapes as their kernels take them


class LayerNormInputs(NamedTuple):
    """Inputs of LayerNorm(x) * silu(gate), in out_dtype."""

    x: Tensor  # (..., C)
    gate: Tensor | None  # like x, of any dtype
    weight: Tensor  # (C,)
    bias: Tensor  # (C,)
    eps: float
    out_dtype: torch.dtype


class DepthwiseConvSiluInputs(NamedTuple):
    """Inputs of silu(conv(x) + bias)."""

    x: Tensor  # (B, H, W, D)
    weight: Tensor  # (D, 1, K, K), K odd
    bias: Tensor | None  # (D,)


class InstanceNormActInputs(NamedTuple):
    """Inputs of leaky_relu(InstanceNorm(x) * weight + bias + residual, slope)."""

    x: Tensor  # (B, H, W, C)
    weight: Tensor | None  # (C,), with bias or not at all
    bias: Tensor | None  # (C,)
    residual: Tensor | None  # like x
    kind: int  # how the residual is treated: see numerics.py
    eps: float
    slope: float


class Conv3x3Inputs(NamedTuple):
    """Inputs of conv2d(x, weight, padding=1)."""

    x: Tensor  # (B, H, W, C)
    weight: Tensor  # (E, C, 3, 3), in any layout and floating dtype


class NormActConv3x3Inputs(NamedTuple):
    """Inputs of conv3x3(leaky_relu(InstanceNorm(x), slope), weight)."""

    x: Tensor  # (B, H, W, C)
    weight: Tensor  # as in Conv3x3Inputs
    eps: float
    slope: float


class MlpGeluInputs(NamedTuple):
    """Inputs of gelu(x @ weight1.T + bias1) @ weight2.T + bias2; parameters of any float dtype."""

    x: Tensor  # (..., C)
    weight1: Tensor  # (E, C)
    bias1: Tensor  # (E,)
    weight2: Tensor  # (F, E)
    bias2: Tensor  # (F,)


class SegmentationSumsInputs(NamedTuple):
    """Inputs of the sums for soft Dice and cross-entropy."""

    logits: Tensor  # (B, C, H, W), C at least 2, contiguous or channels last
    target: Tensor  # (B, H, W) int64: a class, or -1
