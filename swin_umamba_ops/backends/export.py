"""The scans by torch's own scan operator: graphs of constant size, however long the sequence.

For torch.export and formats based on it, such as ONNX, whose Scan node this becomes: only plain
torch operations, with every size symbolic. The recurrence is the formula of one step, repeated by
the operator, with all directions or groups side by side. Outside of export it is slow: a
compilation, then one Python step per position. Precisions are those of reference.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops.numerics import softplus, state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS
from swin_umamba_ops.torch_private import scan_operator


def _recurrence(dt: Tensor, u: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """h_l = exp(dt_l A) h_{l-1} + dt_l Bs_l u_l; y_l = sum_n Cs_l h_l, for M sequences at once.

    dt, u: (L, M, D); Bs, Cs: (L, M, N); A: (M, N, D); channels innermost, since N alone is too
    short a row for vector units. Returns y (L, M, D) and the last state (M, N, D).
    """

    def step(h: Tensor, now: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        dt, du, Bs, Cs = now
        h = torch.exp(dt.unsqueeze(1) * A) * h + Bs.unsqueeze(2) * du.unsqueeze(1)
        # bmm rather than matmul, which inspects sizes: the operator's body may not contain symbolic
        # ones.
        return h, torch.bmm(Cs.unsqueeze(1), h).squeeze(1)

    start = torch.zeros_like(A)
    last, y = scan_operator()(step, start, (dt, dt * u, Bs.contiguous(), Cs.contiguous()))
    return y, last


def _in_order(image: Tensor) -> Tensor:
    """(B, H, W, 4, X), one map per direction, to sequences (L, B, 4, X), each in its own order."""
    rows = image[:, :, :, 0::2].permute(1, 2, 0, 3, 4).flatten(0, 1)
    columns = image[:, :, :, 1::2].permute(2, 1, 0, 3, 4).flatten(0, 1)
    return torch.stack(
        [rows[:, :, 0], columns[:, :, 0], rows[:, :, 1].flip(0), columns[:, :, 1].flip(0)], dim=2
    )


def _merged(y: Tensor, height: int, width: int) -> Tensor:
    """Scatter sequences (L, B, 4, D) back to their positions and add them: (B, H, W, D)."""
    rows = (y[:, :, 0] + y[:, :, 2].flip(0)).unflatten(0, (height, width))
    columns = (y[:, :, 1] + y[:, :, 3].flip(0)).unflatten(0, (width, height))
    merged: Tensor = rows.permute(2, 0, 1, 3) + columns.permute(2, 1, 0, 3)
    return merged


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """The four-direction scan; arguments and result as in `reference.ss2d`."""
    batch, channels, height, width = x.shape
    R, N = dt_projs_weight.shape[-1], A_logs.shape[-1]
    accumulate = state_dtype(x.dtype)
    x = x.permute(0, 2, 3, 1)
    proj = F.linear(x, x_proj_weight.reshape(-1, channels).to(x.dtype)).to(accumulate)
    proj = _in_order(proj.unflatten(-1, (DIRECTIONS, R + 2 * N)))
    dt_r, Bs, Cs = proj.split([R, N, N], dim=-1)
    weight = dt_projs_weight.to(x.dtype).to(accumulate)
    dt = softplus(torch.einsum("lbkr,kdr->lbkd", dt_r, weight) + dt_projs_bias)
    x = x.to(accumulate)
    u = _in_order(x.unsqueeze(3).expand(-1, -1, -1, DIRECTIONS, -1))
    A = -torch.exp(A_logs.to(accumulate).view(DIRECTIONS, channels, N)).transpose(1, 2)
    dt, u, Bs, Cs = (t.flatten(1, 2) for t in (dt, u, Bs, Cs))
    y, _ = _recurrence(dt, u, Bs, Cs, A.repeat(batch, 1, 1))
    y = _merged(y.unflatten(1, (batch, DIRECTIONS)), height, width)
    y = y + Ds.to(accumulate).view(DIRECTIONS, channels).sum(0) * x
    return y.permute(0, 3, 1, 2)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    """The one-dimensional scan; arguments and results as in `reference.selective_scan`."""
    batch, channels, length = u.shape
    groups, N = Bs.shape[1:3]
    accumulate = state_dtype(u.dtype)
    u, dt, A, Bs, Cs = (t.to(accumulate) for t in (u, delta, A, Bs, Cs))
    if delta_bias is not None:
        dt = dt + delta_bias.to(accumulate)[:, None]
    if delta_softplus:
        dt = softplus(dt)
    per_group = channels // groups

    def time_first(t: Tensor, size: int) -> Tensor:
        """(B, ..., L) to (L, B * G, size)."""
        return t.reshape(batch * groups, size, length).permute(2, 0, 1)

    y, last = _recurrence(
        time_first(dt, per_group),
        time_first(u, per_group),
        time_first(Bs, N),
        time_first(Cs, N),
        A.view(groups, per_group, N).transpose(1, 2).repeat(batch, 1, 1),
    )
    out = y.permute(1, 2, 0).reshape(u.shape)
    if Ds is not None:
        out = out + Ds.to(accumulate)[:, None] * u
    return out, last.transpose(1, 2).reshape(batch, channels, N)
