"""The scans exactly as in their formulas: one Python step per position, gradients by autograd.

Deliberately slow and simple; every backend is tested against these functions. Supports all floating
dtypes. States, softplus and sums are float64 for float64 inputs and float32 for all others, as in
the kernels; derivatives of any order are right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.numerics import softplus, state_dtype
from swin_umamba_ops.scan_order import cross_merge, cross_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_l = exp(dt_l A) h_{l-1} + dt_l Bs_l u_l;  out_l = sum_n Cs_l h_l + Ds u_l.

    u, delta: (B, D, L); A: (D, N); Bs, Cs: (B, G, N, L), channel d in group d // (D // G);
    Ds, delta_bias: (D,) or None; initial_state: h_{-1} (B, D, N), zero without. A may be complex,
    and Bs and Cs with it: states come in conjugate pairs of which one is kept, and out_l is twice
    the real part of the sum. Returns out (B, D, L) and the last state (B, D, N), both float64 for
    float64 u, else float32, and the state complex like A.
    """
    accumulate = state_dtype(u.dtype)
    of_state = torch.promote_types(accumulate, torch.complex32) if A.is_complex() else accumulate
    u, delta = u.to(accumulate), delta.to(accumulate)
    A, Bs, Cs = (t.to(of_state) for t in (A, Bs, Cs))
    dt = delta if delta_bias is None else delta + delta_bias.to(accumulate)[:, None]
    if delta_softplus:
        dt = softplus(dt)
    channels_per_group = u.shape[1] // Bs.shape[1]
    Bs = Bs.repeat_interleave(channels_per_group, dim=1)  # (B, D, N, L)
    Cs = Cs.repeat_interleave(channels_per_group, dim=1)

    h = A.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(of_state)
    outs = []
    for step in range(u.shape[2]):
        dt_l = dt[:, :, step, None]
        h = torch.exp(dt_l * A) * h + dt_l * Bs[..., step] * u[:, :, step, None]
        outs.append((Cs[..., step] * h).sum(-1))
    out = torch.stack(outs, dim=-1)
    if out.is_complex():
        out = 2 * out.real
    if Ds is not None:
        out = out + Ds.to(accumulate)[:, None] * u
    return out, h


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """The four-direction scan: project every sequence of `cross_scan`, scan it, merge.

    x: (B, D, H, W); x_proj_weight: (4, R + 2N, D); dt_projs_weight: (4, D, R);
    dt_projs_bias: (4, D); A_logs: (4 * D, N); Ds: (4 * D,).
    The projections to dt_r, Bs and Cs run in x's dtype, everything after them in float64 for
    float64 x, else in float32. Returns y (B, D, H, W) in that dtype.
    """
    batch, channels, height, width = x.shape
    R, N = dt_projs_weight.shape[-1], A_logs.shape[-1]
    accumulate = state_dtype(x.dtype)
    xs = cross_scan(x)
    projected = torch.einsum("bkdl,kcd->bkcl", xs, x_proj_weight.to(x.dtype))
    dt_r, Bs, Cs = projected.split([R, N, N], dim=2)
    weight = dt_projs_weight.to(x.dtype).to(accumulate)
    delta = torch.einsum("bkrl,kdr->bkdl", dt_r.to(accumulate), weight)
    ys, _ = selective_scan(
        xs.flatten(1, 2),
        delta.flatten(1, 2),
        -torch.exp(A_logs.to(accumulate)),
        Bs,
        Cs,
        Ds,
        dt_projs_bias.flatten(),
        delta_softplus=True,
    )
    merged = cross_merge(ys.view(batch, 4, channels, height, width))
    return merged.view(batch, channels, height, width)
