"""Blocks of batch, groups and channels: their size, and the chunked scan of one block.

A group is a set of channels that share Bs and Cs: a direction of ss2d, a group of selective_scan.
Here sequences are (b, k, L, X) in visiting order and states (b, k, C, D, N), as outside.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from swin_umamba_ops.backends import _chunked

chunk_length = 64

# Elements of one block's state over the chunks of a segment, and of all states that the backward
# pass recomputes at a time.
_STATE_ELEMENTS = {"cpu": 1 << 17}
_STATE_ELEMENTS_ELSEWHERE = 1 << 22
_RECOMPUTED_ELEMENTS = {"cpu": 1 << 22}
_RECOMPUTED_ELEMENTS_ELSEWHERE = 1 << 26
# Fewer channels do not fill a vector operation, whatever the budget.
_MIN_CHANNELS = 16
_MIN_CHUNKS = 8


def _segment_chunks(device: torch.device, length: int, channels: int, states_n: int) -> int:
    """Chunks per segment: sequences longer than the budget are processed in segments."""
    budget = _STATE_ELEMENTS.get(device.type, _STATE_ELEMENTS_ELSEWHERE)
    chunks = -(-length // chunk_length)
    return min(chunks, max(_MIN_CHUNKS, budget // (states_n * channels)))


def blocks(
    device: torch.device, batch: int, groups: int, channels: int, length: int, states_n: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of batch, groups and channels whose states fit the device's budget."""
    budget = _STATE_ELEMENTS.get(device.type, _STATE_ELEMENTS_ELSEWHERE)
    per_channel = states_n * _segment_chunks(device, length, channels, states_n)
    d_size = min(channels, max(_MIN_CHANNELS, budget // per_channel))
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


def _segments(u: Tensor, A: Tensor) -> list[tuple[slice, slice]]:
    """Each segment of a block as a slice of its steps and one of its chunks."""
    _, _, length, channels = u.shape
    size = _segment_chunks(u.device, length, channels, A.shape[2])
    return [
        (
            slice(first * chunk_length, (first + size) * chunk_length),
            slice(first, first + size),
        )
        for first in range(0, -(-length // chunk_length), size)
    ]


def _chunk_groups(block: _chunked.Block) -> Iterator[slice]:
    """Slices of the block's chunks whose recomputed states fit the device's budget."""
    steps, *lead, chunks, channels = block.dt.shape
    per_chunk = steps * lead[0] * lead[1] * block.A.shape[1] * channels
    budget = _RECOMPUTED_ELEMENTS.get(block.dt.device.type, _RECOMPUTED_ELEMENTS_ELSEWHERE)
    size = max(1, budget // per_chunk)
    for first in range(0, chunks, size):
        yield slice(first, min(first + size, chunks))


def _make_block(u: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor) -> _chunked.Block:
    """u, dt: (b, k, L, D); Bs, Cs: (b, k, L, N); A: (k, D, N)."""
    steps = min(chunk_length, u.shape[2])
    return _chunked.Block(
        dt=_chunked.fold(dt, steps),
        du=_chunked.fold(dt * u, steps),
        Bs=_chunked.fold(Bs, steps),
        Cs=_chunked.fold(Cs, steps),
        A=A.transpose(1, 2).contiguous(),
    )


def forward(
    u: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Scan one block. Returns y (b, k, L, D), entering states (b, k, C, D, N) and the last
    state (b, k, D, N)."""
    y = torch.empty_like(u)
    states = []
    last: Tensor | None = None
    for steps, _ in _segments(u, A):
        block = _make_block(u[:, :, steps], dt[:, :, steps], Bs[:, :, steps], Cs[:, :, steps], A)
        entering = _chunked.entering_states(block, last)
        part, leaving = _chunked.outputs(block, entering)
        _put(y, part, steps.start)
        states.append(entering)
        last = leaving[:, :, -1]
    assert last is not None
    return y, torch.cat(states, dim=2).transpose(-1, -2), last.transpose(-1, -2)


def backward(
    dy: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    states: Tensor,
    A_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients (du, ddt, dBs, dCs, dA) of one block, shaped like the block's inputs.

    dy: (b, k, L, D); dlast: (b, k, D, N) or None; states: (b, k, C, D, N). dA is zero unless
    wanted.
    """
    ddu, ddt = torch.empty_like(u), torch.empty_like(dt)  # ddu: with respect to dt * u
    dBs, dCs = torch.empty_like(Bs), torch.empty_like(Cs)
    dA = torch.zeros_like(A)
    carried = None if dlast is None else dlast.transpose(-1, -2)
    for steps, chunks in reversed(_segments(u, A)):
        block = _make_block(u[:, :, steps], dt[:, :, steps], Bs[:, :, steps], Cs[:, :, steps], A)
        chunk = block.dt.shape[0]
        dy_part = _chunked.fold(dy[:, :, steps], chunk)
        entering = states[:, :, chunks].transpose(-1, -2)
        adjoint = _chunked.entering_adjoints(block, dy_part, carried)
        for group in _chunk_groups(block):
            part = _chunked.gradients(
                block.take(group),
                dy_part[:, :, :, group].contiguous(),
                entering[:, :, group].contiguous(),
                adjoint[:, :, group],
                A_wanted,
            )
            start = steps.start + group.start * chunk
            _put(ddu, part.ddu, start)
            _put(ddt, part.ddt, start)
            _put(dBs, part.dBs, start)
            _put(dCs, part.dCs, start)
            dA += part.dA.transpose(1, 2)
            if group.start == 0:
                carried = part.dstart
    ddt.addcmul_(ddu, u)
    return ddu.mul_(dt), ddt, dBs, dCs, dA


def _put(sequence: Tensor, folded: Tensor, start: int) -> None:
    """Write folded steps into (b, k, L, X) from `start` on, without padding beyond L."""
    part = _chunked.unfold(folded)
    room = sequence[:, :, start : start + part.shape[2]]
    room.copy_(part[:, :, : room.shape[2]])
