"""The scan in plain torch operations: every device, every floating dtype, no compiler.

Vectorized over chunks (_chunked.py) and cut into blocks (_blocks.py) that keep the working set near
the cache on a CPU and bounded on an accelerator. The backward pass recomputes the states from one
saved state per chunk. Sums, states and softplus are float64 for float64 inputs and float32
otherwise; results are bitwise reproducible.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.backends import _blocks
from swin_umamba_ops.backends._blocks import chunk_length
from swin_umamba_ops.backends.protocols import Gradients
from swin_umamba_ops.inputs import (
    ALL_SCAN,
    ALL_SS2D,
    ScanInputs,
    ScanWanted,
    SS2DInputs,
    SS2DWanted,
)
from swin_umamba_ops.numerics import softplus, state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS, step_of_position, visiting_order


def why_unusable() -> str | None:
    """Always None: it only needs torch."""
    return None


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    """Always None: it supports any device, floating dtype and number of states."""
    return None


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    return N, R


def ss2d_forward(inputs: SS2DInputs, out_dtype: torch.dtype, save: bool) -> tuple[Tensor, Tensor]:
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see ops/ss2d.py."""
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
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
        for b, k, d in _blocks.blocks(x.device, batch, DIRECTIONS, channels, length, states_n):
            dt_r, Bs, Cs = _ordered_projections(proj[b], order, k, weight.shape[2], states_n)
            raw = _raw_dt(dt_r, weight[k, d], dt_projs_bias[k, d])
            u = x[b, :, d][:, order[k]].to(accumulate)
            part, entering, _ = _blocks.forward(u, softplus(raw), Bs, Cs, A[k, d])
            _add_in_place(y[b, :, d], part, steps[k])
            if save:
                states[b, k, :, d] = entering
    y.addcmul_(x.to(accumulate), Ds.view(DIRECTIONS, channels).sum(0))
    return y.view(batch, height, width, channels).to(out_dtype), states


def ss2d_backward(
    dy: Tensor, inputs: SS2DInputs, states: Tensor, wanted: SS2DWanted = ALL_SS2D
) -> Gradients:
    """The gradients of the six inputs, each like its input."""
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    batch, height, width, channels = x.shape
    states_n, rank = A_logs.shape[1], dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    order = visiting_order(height, width, x.device)
    steps = step_of_position(height, width, x.device)
    length = height * width
    x, dy = x.flatten(1, 2), dy.flatten(1, 2).to(accumulate)
    A = -torch.exp(A_logs.view(DIRECTIONS, channels, states_n))
    weight = dt_projs_weight.to(accumulate)

    dx = dy * Ds.view(DIRECTIONS, channels).sum(0)
    dproj = torch.zeros_like(proj.flatten(1, 2), dtype=accumulate)
    dweight = torch.zeros_like(weight)
    dbias = torch.zeros_like(dt_projs_bias)
    dA = torch.zeros_like(A)
    with torch.autocast(x.device.type, enabled=False):
        for b, k, d in _blocks.blocks(x.device, batch, DIRECTIONS, channels, length, states_n):
            dt_r, Bs, Cs = _ordered_projections(proj[b], order, k, rank, states_n)
            raw = _raw_dt(dt_r, weight[k, d], dt_projs_bias[k, d])
            u = x[b, :, d][:, order[k]].to(accumulate)
            du, ddt, dBs, dCs, dA_part = _blocks.backward(
                dy[b, :, d][:, order[k]],
                None,
                u,
                softplus(raw),
                Bs,
                Cs,
                A[k, d],
                states[b, k, :, d],
                wanted.A_logs,
            )
            _add_in_place(dx[b, :, d], du, steps[k])
            draw = ddt.mul_(torch.sigmoid(raw))
            ddt_r = torch.matmul(draw, weight[k, d])
            dprojected = torch.cat([ddt_r, dBs, dCs], dim=-1)
            for i, direction in enumerate(range(k.start, k.stop)):
                dproj[b, :, direction] += dprojected[:, i, steps[direction]]
            if wanted.dt_projs_weight:
                dweight[k, d] += torch.matmul(draw.transpose(-1, -2), dt_r).sum(0)
            if wanted.dt_projs_bias:
                dbias[k, d] += draw.sum((0, 2))
            dA[k, d] += dA_part
    dDs = None
    if wanted.Ds:
        dDs = (x.to(accumulate) * dy).sum((0, 1)).repeat(DIRECTIONS)
    return (
        dx.view(batch, height, width, channels).to(x.dtype),
        dproj.view_as(proj).to(proj.dtype),
        dweight.to(dt_projs_weight.dtype),
        dbias,
        (dA * A).view_as(A_logs),
        dDs,
    )


def _ordered_projections(
    proj: Tensor, order: Tensor, directions: slice, rank: int, states_n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """From proj (b, H, W, 4, R + 2N), in visiting order: dt_r (b, k, L, R), Bs, Cs (b, k, L, N)."""
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

    A gather by the inverse order rather than a scatter, so that sums are bitwise reproducible.
    """
    for i in range(parts.shape[1]):
        merged += parts[:, i, steps[i]]


def selective_scan_forward(
    inputs: ScanInputs, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    u, Ds = inputs.u, inputs.Ds
    batch, channels, length = u.shape
    groups, states_n = inputs.Bs.shape[1:3]
    split = (groups, channels // groups)
    accumulate = state_dtype(u.dtype)
    chunks = -(-length // chunk_length)
    out = torch.empty_like(u, dtype=accumulate)
    last = u.new_empty(batch, channels, states_n, dtype=accumulate)
    kept = (batch, chunks, channels, states_n) if save else (0,)
    states = u.new_empty(kept, dtype=accumulate)
    grouped_A = inputs.A.view(*split, states_n)
    grouped = _GroupedInputs(inputs)

    with torch.autocast(u.device.type, enabled=False):
        for b, k, d in _blocks.blocks(u.device, batch, *split, length, states_n):
            part, entering, leaving = _blocks.forward(*grouped.block(b, k, d), grouped_A[k, d])
            _grouped(out, groups)[b, k, :, d] = part
            last.view(batch, *split, states_n)[b, k, d] = leaving
            if save:
                states.view(batch, chunks, *split, states_n)[b, :, k, d] = entering.transpose(1, 2)
    if Ds is not None:
        out.addcmul_(u.to(accumulate), Ds.unsqueeze(1))
    return out.to(out_dtype), last, states


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    wanted: ScanWanted = ALL_SCAN,
) -> Gradients:
    """The gradients of the seven tensors, each like its input."""
    u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus = inputs
    batch, chunks, channels, states_n = states.shape
    length, groups = u.shape[2], Bs.shape[1]
    split = (groups, channels // groups)
    accumulate = state_dtype(u.dtype)
    dout = dout.to(accumulate)
    grouped_states = states.view(batch, chunks, *split, states_n).transpose(1, 2)
    grouped_A = A.view(*split, states_n)
    grouped = _GroupedInputs(inputs)

    du = torch.empty_like(u, dtype=accumulate)
    ddelta = torch.empty_like(delta, dtype=accumulate)
    dBs = torch.zeros_like(Bs, dtype=accumulate)
    dCs = torch.zeros_like(Cs, dtype=accumulate)
    dA = torch.zeros_like(A)
    with torch.autocast(u.device.type, enabled=False):
        for b, k, d in _blocks.blocks(u.device, batch, *split, length, states_n):
            dlast_part = None
            if dlast is not None:
                dlast_part = dlast.view(batch, *split, states_n)[b, k, d]
            du_part, ddt, dBs_part, dCs_part, dA_part = _blocks.backward(
                _grouped(dout, groups)[b, k, :, d],
                dlast_part,
                *grouped.block(b, k, d),
                grouped_A[k, d],
                grouped_states[b, k, :, d],
                wanted.A,
            )
            if delta_softplus:
                ddt.mul_(torch.sigmoid(grouped.raw_dt(b, k, d)))
            _grouped(du, groups)[b, k, :, d] = du_part
            _grouped(ddelta, groups)[b, k, :, d] = ddt
            dBs[b, k] += dBs_part.transpose(2, 3)
            dCs[b, k] += dCs_part.transpose(2, 3)
            dA.view(*split, states_n)[k, d] += dA_part
    dDs, dbias = None, None
    if Ds is not None and wanted.Ds:
        dDs = (u.to(accumulate) * dout).sum((0, 2))
    if delta_bias is not None and wanted.delta_bias:
        dbias = ddelta.sum((0, 2))
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


def _grouped(sequence: Tensor, groups: int) -> Tensor:
    """(B, D, L), contiguous, as a view of shape (B, G, L, D // G)."""
    batch, _, length = sequence.shape
    return sequence.view(batch, groups, -1, length).transpose(2, 3)


class _GroupedInputs:
    """The inputs of `selective_scan`, passed block by block to `_blocks.forward`."""

    def __init__(self, inputs: ScanInputs) -> None:
        u, delta, _, Bs, Cs, _, delta_bias, delta_softplus = inputs
        groups = Bs.shape[1]
        self._accumulate = state_dtype(u.dtype)
        self._u, self._delta = _grouped(u, groups), _grouped(delta, groups)
        self._Bs, self._Cs = Bs.transpose(2, 3), Cs.transpose(2, 3)
        self._bias = None if delta_bias is None else delta_bias.view(groups, -1)
        self._softplus = delta_softplus

    def raw_dt(self, b: slice, k: slice, d: slice) -> Tensor:
        """dt before softplus, (b, k, L, D)."""
        raw = self._delta[b, k, :, d].to(self._accumulate)
        return raw if self._bias is None else raw + self._bias[k, d].unsqueeze(1)

    def block(self, b: slice, k: slice, d: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(u, dt, Bs, Cs) of a block in the state's dtype."""
        raw = self.raw_dt(b, k, d)
        return (
            self._u[b, k, :, d].to(self._accumulate),
            softplus(raw) if self._softplus else raw,
            self._Bs[b, k].to(self._accumulate),
            self._Cs[b, k].to(self._accumulate),
        )
