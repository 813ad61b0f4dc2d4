"""The scan in plain torch operations: every device, every floating dtype, no compiler.

Vectorised in chunks (see _chunked.py) and cut in blocks of batch, direction and channels that
keep the working set near the cache on a CPU and bounded on an accelerator. The backward rebuilds
the states from one saved state per chunk. Sums, states and softplus are float64 for float64
inputs and float32 otherwise; results repeat bitwise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from swin_umamba_ops.backends import _chunked
from swin_umamba_ops.numerics import softplus, state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS, step_of_position, visiting_order

chunk_length = 64

# Elements of one block's state over all chunks, and of all states that the backward rebuilds.
_STATE_ELEMENTS = {"cpu": 1 << 17}
_STATE_ELEMENTS_ELSEWHERE = 1 << 22
_REBUILT_ELEMENTS = {"cpu": 1 << 22}
_REBUILT_ELEMENTS_ELSEWHERE = 1 << 26


def why_unusable() -> str | None:
    """Always None: torch is all it needs."""
    return None


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    """Always None: any device, floating dtype and number of states will do."""
    return None


def _blocks(
    device: torch.device, batch: int, groups: int, channels: int, per_channel: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of batch, groups and channels whose states stay within the device's budget."""
    budget = _STATE_ELEMENTS.get(device.type, _STATE_ELEMENTS_ELSEWHERE)
    d_size = min(channels, max(16, budget // per_channel))
    per_group = per_channel * channels
    k_size = max(1, min(groups, budget // per_group))
    b_size = max(1, min(batch, budget // (per_group * groups)))
    for b in range(0, batch, b_size):
        for k in range(0, groups, k_size):
            for d in range(0, channels, d_size):
                yield (
                    slice(b, min(b + b_size, batch)),
                    slice(k, min(k + k_size, groups)),
                    slice(d, min(d + d_size, channels)),
                )


def _chunk_groups(block: _chunked.Block) -> Iterator[slice]:
    """Slices of the block's chunks whose rebuilt states stay within the device's budget."""
    steps, *lead, chunks, channels = block.dt.shape
    per_chunk = steps * lead[0] * lead[1] * block.A.shape[1] * channels
    budget = _REBUILT_ELEMENTS.get(block.dt.device.type, _REBUILT_ELEMENTS_ELSEWHERE)
    size = max(1, budget // per_chunk)
    for first in range(0, chunks, size):
        yield slice(first, min(first + size, chunks))


def _chunk_steps(length: int) -> int:
    """Steps of a chunk: `chunk_length`, or the whole sequence where that is shorter."""
    return min(chunk_length, length)


def _make_block(u: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor) -> _chunked.Block:
    """u, dt: (b, k, L, D); Bs, Cs: (b, k, L, N); A: (k, D, N)."""
    steps = _chunk_steps(u.shape[2])
    return _chunked.Block(
        dt=_chunked.fold(dt, steps),
        du=_chunked.fold(dt * u, steps),
        Bs=_chunked.fold(Bs, steps),
        Cs=_chunked.fold(Cs, steps),
        A=A.transpose(1, 2).contiguous(),
    )


def _forward(
    u: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan one block. Returns y (b, k, L, D), entering states (b, k, C, D, N) and the last
    state (b, k, D, N)."""
    block = _make_block(u, dt, Bs, Cs, A)
    entering, last = _chunked.entering_states(block)
    y, leaving = _chunked.outputs(block, entering)
    if last is None:
        last = leaving[:, :, 0]
    return _chunked.unfold(y, u.shape[2]), entering.transpose(-1, -2), last.transpose(-1, -2)


def _backward(
    dy: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients (du, ddt, dBs, dCs, dA) of one block, shaped like the block's inputs.

    dy: (b, k, L, D); dlast: (b, k, D, N) or None; states: (b, k, C, D, N).
    """
    length = u.shape[2]
    block = _make_block(u, dt, Bs, Cs, A)
    folded_dy = _chunked.fold(dy, block.dt.shape[0])
    entering = states.transpose(-1, -2)
    adjoint = _chunked.entering_adjoints(
        block, folded_dy, None if dlast is None else dlast.transpose(-1, -2)
    )
    parts = [
        _chunked.gradients(
            block.take(chunks),
            folded_dy[:, :, :, chunks].contiguous(),
            entering[:, :, chunks].contiguous(),
            adjoint[:, :, chunks],
        )
        for chunks in _chunk_groups(block)
    ]

    def joined(name: str) -> Tensor:
        return _chunked.unfold(torch.cat([getattr(p, name) for p in parts], dim=3), length)

    ddu = joined("ddu")
    dA = torch.stack([p.dA for p in parts]).sum(0).transpose(1, 2)
    return ddu * dt, joined("ddt") + ddu * u, joined("dBs"), joined("dCs"), dA


def ss2d_forward(
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see library.py."""
    batch, height, width, channels = x.shape
    length, states_n = height * width, A_logs.shape[1]
    accumulate = state_dtype(x.dtype)
    order = visiting_order(height, width, x.device)
    steps = step_of_position(height, width, x.device)
    chunks = -(-length // chunk_length)
    x = x.flatten(1, 2)
    y = torch.zeros_like(x, dtype=accumulate)
    kept = (batch, DIRECTIONS, chunks, channels, states_n) if save else (0,)
    states = x.new_empty(kept, dtype=accumulate)
    A = -torch.exp(A_logs.view(DIRECTIONS, channels, states_n))
    weight = dt_projs_weight.to(accumulate)

    with torch.autocast(x.device.type, enabled=False):
        for b, k, d in _blocks(x.device, batch, DIRECTIONS, channels, chunks * states_n):
            dt_r, Bs, Cs = _ordered_projections(proj[b], order, k, weight.shape[2], states_n)
            raw = _raw_dt(dt_r, weight[k, d], dt_projs_bias[k, d])
            u = x[b, :, d][:, order[k]].to(accumulate)
            part, entering, _ = _forward(u, softplus(raw), Bs, Cs, A[k, d])
            _add_in_place(y[b, :, d], part, steps[k])
            if save:
                states[b, k, :, d] = entering
    y.addcmul_(x.to(accumulate), Ds.view(DIRECTIONS, channels).sum(0))
    return y.view(batch, height, width, channels).to(out_dtype), states


def ss2d_backward(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, proj, dt_projs_weight, dt_projs_bias, A_logs and Ds, each like its input."""
    batch, height, width, channels = x.shape
    states_n, rank = A_logs.shape[1], dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    order = visiting_order(height, width, x.device)
    steps = step_of_position(height, width, x.device)
    chunks = states.shape[2]
    shape = x.shape
    x, dy = x.flatten(1, 2), dy.flatten(1, 2).to(accumulate)
    A = -torch.exp(A_logs.view(DIRECTIONS, channels, states_n))
    weight = dt_projs_weight.to(accumulate)

    dx = dy * Ds.view(DIRECTIONS, channels).sum(0)
    dproj = torch.zeros_like(proj.flatten(1, 2), dtype=accumulate)
    dweight = torch.zeros_like(weight)
    dbias = torch.zeros_like(dt_projs_bias)
    dA = torch.zeros_like(A)
    with torch.autocast(x.device.type, enabled=False):
        for b, k, d in _blocks(x.device, batch, DIRECTIONS, channels, chunks * states_n):
            dt_r, Bs, Cs = _ordered_projections(proj[b], order, k, rank, states_n)
            raw = _raw_dt(dt_r, weight[k, d], dt_projs_bias[k, d])
            u = x[b, :, d][:, order[k]].to(accumulate)
            du, ddt, dBs, dCs, dA_part = _backward(
                dy[b, :, d][:, order[k]],
                None,
                u,
                softplus(raw),
                Bs,
                Cs,
                A[k, d],
                states[b, k, :, d],
            )
            _add_in_place(dx[b, :, d], du, steps[k])
            draw = ddt.mul_(torch.sigmoid(raw))
            ddt_r = torch.matmul(draw, weight[k, d])
            dprojected = torch.cat([ddt_r, dBs, dCs], dim=-1)
            for i, direction in enumerate(range(k.start, k.stop)):
                dproj[b, :, direction] += dprojected[:, i, steps[direction]]
            dweight[k, d] += torch.matmul(draw.transpose(-1, -2), dt_r).sum(0)
            dbias[k, d] += draw.sum((0, 2))
            dA[k, d] += dA_part
    dDs = (x.to(accumulate) * dy).sum((0, 1)).repeat(DIRECTIONS)
    return (
        dx.view(shape).to(x.dtype),
        dproj.view_as(proj).to(proj.dtype),
        dweight.to(dt_projs_weight.dtype),
        dbias,
        (dA * A).view_as(A_logs),
        dDs,
    )


def _ordered_projections(
    proj: Tensor, order: Tensor, directions: slice, rank: int, states_n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """dt_r (b, k, L, R), Bs and Cs (b, k, L, N) in visiting order, from proj (b, H, W, 4, R + 2N)."""
    flat = proj.flatten(1, 2)
    ordered = torch.stack(
        [flat[:, order[k], k] for k in range(directions.start, directions.stop)], dim=1
    ).to(state_dtype(proj.dtype))
    dt_r, Bs, Cs = ordered.split([rank, states_n, states_n], dim=-1)
    return dt_r, Bs, Cs


def _raw_dt(dt_r: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """dt before softplus, (b, k, L, D), from dt_r (b, k, L, R), weight (k, D, R), bias (k, D)."""
    return torch.matmul(dt_r, weight.transpose(1, 2)).add_(bias.unsqueeze(1))


def _add_in_place(merged: Tensor, parts: Tensor, steps: Tensor) -> None:
    """Add sequences (b, k, L, D), each in its own order, to `merged` (b, L, D), row-major.

    A gather by the inverse order rather than a scatter, so that sums repeat bitwise.
    """
    for i in range(parts.shape[1]):
        merged += parts[:, i, steps[i]]


def selective_scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    batch, channels, length = u.shape
    groups, states_n = Bs.shape[1:3]
    per_group = channels // groups
    accumulate = state_dtype(u.dtype)
    chunks = -(-length // chunk_length)
    out = torch.empty_like(u, dtype=accumulate)
    last = u.new_empty(batch, channels, states_n, dtype=accumulate)
    kept = (batch, chunks, channels, states_n) if save else (0,)
    states = u.new_empty(kept, dtype=accumulate)
    grouped_out = out.unflatten(1, (groups, per_group)).transpose(2, 3)
    grouped_last = last.unflatten(1, (groups, per_group))
    inputs = _GroupedInputs(u, delta, A, Bs, Cs, delta_bias, delta_softplus)

    for b, k, d in _blocks(u.device, batch, groups, per_group, chunks * states_n):
        part, entering, leaving = _forward(*inputs.block(b, k, d)[:5])
        grouped_out[b, k, :, d] = part
        grouped_last[b, k, d] = leaving
        if save:
            states.unflatten(2, (groups, per_group))[b, :, k, d] = entering.transpose(1, 2)
    if Ds is not None:
        out.addcmul_(u.to(accumulate), Ds.unsqueeze(1))
    return out.to(out_dtype), last, states


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of u, delta, A, Bs, Cs, Ds and delta_bias, each like its input.

    Those of an absent Ds or delta_bias are empty.
    """
    batch, channels, length = u.shape
    groups, states_n = Bs.shape[1:3]
    per_group = channels // groups
    accumulate = state_dtype(u.dtype)
    dout = dout.to(accumulate)
    grouped_dout = dout.unflatten(1, (groups, per_group)).transpose(2, 3)
    grouped_states = states.unflatten(2, (groups, per_group)).transpose(1, 2)
    inputs = _GroupedInputs(u, delta, A, Bs, Cs, delta_bias, delta_softplus)

    du = torch.empty_like(u, dtype=accumulate)
    ddelta = torch.empty_like(delta, dtype=accumulate)
    dBs = torch.zeros_like(Bs, dtype=accumulate)
    dCs = torch.zeros_like(Cs, dtype=accumulate)
    dA = torch.zeros_like(A)
    for b, k, d in _blocks(u.device, batch, groups, per_group, states.shape[1] * states_n):
        *block, raw = inputs.block(b, k, d)
        dlast_part = None
        if dlast is not None:
            dlast_part = dlast.unflatten(1, (groups, per_group))[b, k, d]
        du_part, ddt, dBs_part, dCs_part, dA_part = _backward(
            grouped_dout[b, k, :, d], dlast_part, *block, grouped_states[b, k, :, d]
        )
        if delta_softplus:
            ddt.mul_(torch.sigmoid(raw))
        du.unflatten(1, (groups, per_group)).transpose(2, 3)[b, k, :, d] = du_part
        ddelta.unflatten(1, (groups, per_group)).transpose(2, 3)[b, k, :, d] = ddt
        dBs[b, k] += dBs_part.transpose(2, 3)
        dCs[b, k] += dCs_part.transpose(2, 3)
        dA.unflatten(0, (groups, per_group))[k, d] += dA_part
    nothing = A.new_empty(0)
    dDs = nothing if Ds is None else (u.to(accumulate) * dout).sum((0, 2))
    dbias = nothing if delta_bias is None else ddelta.sum((0, 2))
    if Ds is not None:
        du.addcmul_(dout, Ds.unsqueeze(1))
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA,
        dBs.to(Bs.dtype),
        dCs.to(Cs.dtype),
        dDs,
        dbias,
    )


class _GroupedInputs:
    """The inputs of `selective_scan`, handed out block by block in the layout of `_forward`."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        Bs: Tensor,
        Cs: Tensor,
        delta_bias: Tensor | None,
        delta_softplus: bool,
    ) -> None:
        split = (Bs.shape[1], u.shape[1] // Bs.shape[1])
        self._accumulate = state_dtype(u.dtype)
        self._u = u.unflatten(1, split).transpose(2, 3)
        self._delta = delta.unflatten(1, split).transpose(2, 3)
        self._A = A.unflatten(0, split)
        self._Bs, self._Cs = Bs.transpose(2, 3), Cs.transpose(2, 3)
        self._bias = None if delta_bias is None else delta_bias.unflatten(0, split)
        self._softplus = delta_softplus

    def block(
        self, b: slice, k: slice, d: slice
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """(u, dt, Bs, Cs, A, raw): `raw` is dt before softplus, all in the state's dtype."""
        raw = self._delta[b, k, :, d].to(self._accumulate)
        if self._bias is not None:
            raw = raw + self._bias[k, d].unsqueeze(1)
        return (
            self._u[b, k, :, d].to(self._accumulate),
            softplus(raw) if self._softplus else raw,
            self._Bs[b, k].to(self._accumulate),
            self._Cs[b, k].to(self._accumulate),
            self._A[k, d],
            raw,
        )
