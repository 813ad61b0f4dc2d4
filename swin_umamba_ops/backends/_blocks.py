"""Blocks of batch, groups and channels: how large, and the chunked scan of one of them.

A group is a set of channels that share Bs and Cs: a direction of ss2d, a group of selective_scan.
Here sequences are (b, k, L, X) in visiting order and states (b, k, C, D, N), as outside.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from swin_umamba_ops.backends import _chunked

chunk_length = 64

# Elements of one block's state over all chunks, and of all states that the backward rebuilds.
_STATE_ELEMENTS = {"cpu": 1 << 17}
_STATE_ELEMENTS_ELSEWHERE = 1 << 22
_REBUILT_ELEMENTS = {"cpu": 1 << 22}
_REBUILT_ELEMENTS_ELSEWHERE = 1 << 26


def blocks(
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
    block = _make_block(u, dt, Bs, Cs, A)
    entering, last = _chunked.entering_states(block)
    y, leaving = _chunked.outputs(block, entering)
    if last is None:
        last = leaving[:, :, 0]
    return _chunked.unfold(y, u.shape[2]), entering.transpose(-1, -2), last.transpose(-1, -2)


def backward(
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
