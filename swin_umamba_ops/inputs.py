"""What the scans take, one record each, handed through all layers as it is.

Letters as in functional.py: B batch, D channels, H, W, L = H * W, N states, R ranks, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class SS2DArguments(NamedTuple):
    """Of the public ss2d. Parameters are float32 or of x's dtype."""

    x: Tensor  # (B, D, H, W)
    x_proj_weight: Tensor  # (4, R + 2N, D)
    dt_projs_weight: Tensor  # (4, D, R)
    dt_projs_bias: Tensor  # (4, D)
    A_logs: Tensor  # (4 * D, N)
    Ds: Tensor  # (4 * D,)


class SS2DInputs(NamedTuple):
    """Of the ops and kernels of ss2d, which begin behind the projection of x.

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
    """Of selective_scan. In ops and kernels u, delta, Bs and Cs have one dtype and the others the
    state's, as in SS2DInputs."""

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
        """All but the flag: what has gradients."""
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
