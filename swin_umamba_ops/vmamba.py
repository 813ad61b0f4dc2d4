"""VMamba's scan with its positional arguments, as a replacement for its module csms6s."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from swin_umamba_ops.mamba_ssm import scan


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    oflex: bool = True,
    backend: str | None = None,
) -> Any:
    """The scan of K directions: u, delta (B, K * D, L); A (K * D, N); B, C (B, K, N, L); D,
    delta_bias (K * D,). Returns (B, K * D, L), in u's dtype or, with oflex, in float32 at least."""
    return scan.selective_scan_fn(
        u, delta, A, B, C, D, None, delta_bias, delta_softplus, oflex=oflex, backend=backend
    )
