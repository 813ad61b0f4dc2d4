"""Mamba's block after its input projection as one call: mamba-ssm's and Vim's functions.

xz: (B, 2 * D, L), the convolved and the gating branch; conv1d_weight: (D, 1, K), conv1d_bias: (D,);
x_proj_weight: (R + 2N, D), or R + N rows if B or C is given, R rows if both are; delta_proj_weight:
(D, R); out_proj_weight: (E, D), out_proj_bias: (E,). A, B, C, D, delta_bias as in `selective_scan`.
Under autocast, projections and the convolution run in its dtype. Plain calls of PyTorch and of the
scan: autograd keeps what they need.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.mamba_ssm.scan import selective_scan_fn


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """A causal depthwise convolution: x (B, D, L), weight (D, K), bias (D,). seq_idx (B, L): steps
    of other sequences are ignored. activation: None, "silu" or "swish"."""
    _check_activation(activation)
    width = weight.shape[1]
    if seq_idx is None:
        out = F.conv1d(F.pad(x, (width - 1, 0)), weight.unsqueeze(1), bias, groups=x.shape[1])
    else:
        shifted = [F.pad(x, (shift, 0))[..., : x.shape[-1]] for shift in range(width)]
        same = [
            F.pad(seq_idx, (shift, 0), value=-1)[:, : x.shape[-1]] == seq_idx
            for shift in range(width)
        ]
        products = [
            weight[:, width - 1 - shift, None] * shifted[shift] * same[shift].unsqueeze(1)
            for shift in range(width)
        ]
        out = torch.stack(products).sum(0)
        out = (out if bias is None else out + bias[:, None]).to(x.dtype)
    result: Tensor = out if activation is None else F.silu(out)
    return result


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """One step of it: x (B, D); conv_state (B, D, K), the last inputs, updated in place."""
    _check_activation(activation)
    conv_state.copy_(torch.cat([conv_state[:, :, 1:], x.unsqueeze(-1).to(conv_state.dtype)], -1))
    out: Tensor = (conv_state * weight).sum(-1)
    out = out if bias is None else out + bias
    return (out if activation is None else F.silu(out)).to(x.dtype)


def _check_activation(activation: str | None) -> None:
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation is {activation!r}, expected None, 'silu' or 'swish'")


def _rms(t: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """t (B, L, X), normalized over X if there is a weight."""
    return t if weight is None else F.rms_norm(t, (t.shape[-1],), weight.to(t.dtype), eps)


def _sequence(t: Tensor, bias: Tensor | None, A: Tensor) -> Tensor:
    """(B, L, N), as projected, to (B, N, L), or with complex A from (B, L, 2N) to (B, N, 2L)."""
    if bias is not None:
        t = t + bias.to(t.dtype)
    if A.is_complex():
        parts: Tensor = t.unflatten(-1, (-1, 2))
        return parts.permute(0, 2, 1, 3).flatten(2)
    return t.transpose(1, 2)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
    *,
    A_b: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    seq_idx: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The block without its last projection: (B, D, L).

    *_rms_weight: normalize B, C and dt's low-rank part. A_b: also scan backwards with it, and add.
    cu_seqlens, seq_idx: consecutive sequences in L, by boundaries and by step. checkpoint_lvl has
    no effect.
    """
    x, z = xz.chunk(2, dim=1)
    x = causal_conv1d_fn(x, conv1d_weight.squeeze(1), conv1d_bias, seq_idx, "silu")
    projected = F.linear(x.transpose(1, 2), x_proj_weight)
    rank = delta_proj_weight.shape[1]
    states = A.shape[1] * (2 if A.is_complex() else 1)
    dt = _rms(projected[..., :rank], dt_rms_weight, b_c_dt_rms_eps)
    delta = F.linear(dt, delta_proj_weight).transpose(1, 2)
    if B is None:
        values = _rms(projected[..., rank : rank + states], b_rms_weight, b_c_dt_rms_eps)
        B = _sequence(values, B_proj_bias, A)
    if C is None:
        values = _rms(projected[..., -states:], c_rms_weight, b_c_dt_rms_eps)
        C = _sequence(values, C_proj_bias, A)
    scan = partial(
        selective_scan_fn, D=D, delta_bias=delta_bias, delta_softplus=delta_softplus,
        backend=backend,
    )  # fmt: skip
    out: Tensor = scan(x, delta, A, B, C, z=z, cu_seqlens=cu_seqlens)
    if A_b is not None:
        # Constant maps have no steps to reverse; with complex A a step is two entries.
        B, C = (t if t.dim() == 2 else _backwards(t, A.is_complex()) for t in (B, C))
        x, delta, z = (t.flip(-1) for t in (x, delta, z))
        if cu_seqlens is not None:
            cu_seqlens = x.shape[-1] - cu_seqlens.flip(0)
        out = out + scan(x, delta, A_b, B, C, z=z, cu_seqlens=cu_seqlens).flip(-1)
    return out


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    *inputs: Any,
    **options: Any,
) -> Tensor:
    """The complete block: (B, L, E). All further arguments, from A on, are those of
    `mamba_inner_fn_no_out_proj`, by position or by name."""
    out = mamba_inner_fn_no_out_proj(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, *inputs, **options
    )
    return F.linear(out.transpose(1, 2), out_proj_weight, out_proj_bias)


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    *inputs: Any,
    **options: Any,
) -> Tensor:
    """Vim's block (bimamba_type "v1"): `mamba_inner_fn`, scanned also backwards with A_b."""
    return mamba_inner_fn(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight,
        out_proj_bias, A, *inputs, A_b=A_b, **options,
    )  # fmt: skip


def mamba_inner_ref(*inputs: Any, **options: Any) -> Tensor:
    """`mamba_inner_fn` with the scan computed by its formula."""
    return mamba_inner_fn(*inputs, **{**options, "backend": backends.REFERENCE})


def _backwards(t: Tensor, is_complex: bool) -> Tensor:
    return t.unflatten(-1, (-1, 2)).flip(-2).flatten(-2) if is_complex else t.flip(-1)
