"""The scan as mamba-ssm and VMamba call it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from swin_umamba_ops import backends
from swin_umamba_ops.functional import selective_scan

# VMamba's own names for kernels that compute the same; None requests its default.
_VMAMBA_BACKENDS = {"oflex", "core", "mamba", "ndstate", "nrow"}


def _backend(name: str | None) -> str:
    if name is None or name in _VMAMBA_BACKENDS:
        return backends.AUTO
    return "pytorch" if name == "torch" else name


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    cu_seqlens: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    oflex: bool = False,
    backend: str | None = None,
) -> Any:
    """`swin_umamba_ops.selective_scan` with mamba-ssm's positional arguments and VMamba's keywords.

    oflex: return float32 for 16-bit u. backend: one of ours; None or one of VMamba's names
    ("oflex", "core", "mamba") means "auto"; "torch" is our "pytorch". VMamba itself passes
    delta_bias, delta_softplus, oflex and backend by position; `vmamba.selective_scan_fn` accepts
    that.
    """
    dtype = u.dtype
    if oflex and dtype.itemsize == 2:
        u = u.float()
    return selective_scan(
        u,
        delta,
        A,
        B,
        C,
        D,
        z,
        delta_bias,
        delta_softplus,
        return_last_state,
        initial_state=initial_state,
        cu_seqlens=cu_seqlens,
        backend=_backend(backend),
    )


def selective_scan_ref(*args: Any, **options: Any) -> Any:
    """`selective_scan_fn` computed by the formula, one step at a time."""
    return selective_scan_fn(*args, **{**options, "backend": backends.REFERENCE})
