"""Chunked selective scan of one block of channels, vectorized over everything but a chunk's steps.

The sequence is cut into C chunks of T steps. Every Python loop below takes T steps over all chunks
at once, or C steps over the small chunk states; never all L = C * T. Decays enter only as exp(dt *
A) over single steps and whole chunks, never as a quotient of cumulative products, so nothing
overflows or divides by zero however large dt * |A| grows.

Inside a block tensors are time-major with channels last: (T, b, k, C, X). States are (b, k, C, N,
D): channels innermost, since N alone is too short a row for vector units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def fold(sequence: Tensor, chunk: int) -> Tensor:
    """(b, k, L, X) -> contiguous (T, b, k, C, X), padded with zeros.

    Zeros are steps with dt = 0 and input 0, which leave a state unchanged.
    """
    missing = -sequence.shape[2] % chunk
    if missing:
        sequence = F.pad(sequence, (0, 0, 0, missing))
    b, k, length, X = sequence.shape
    return sequence.reshape(b, k, length // chunk, chunk, X).permute(3, 0, 1, 2, 4).contiguous()


def unfold(folded: Tensor) -> Tensor:
    """(T, b, k, C, X) -> (b, k, C * T, X): the inverse of `fold`, padding included."""
    return folded.permute(1, 2, 3, 0, 4).flatten(2, 3)


@dataclass(frozen=True)
class Block:
    """Folded inputs of one block. dt, du = dt * u: (T, b, k, C, D); Bs, Cs: (T, b, k, C, N);
    A: (k, N, D)."""

    dt: Tensor
    du: Tensor
    Bs: Tensor
    Cs: Tensor
    A: Tensor

    def zero_state(self) -> Tensor:
        """Zeros of shape (b, k, C, N, D)."""
        return self.dt.new_zeros(*self.dt.shape[1:4], *self.A.shape[1:])

    def decay(self, step: int, out: Tensor) -> Tensor:
        """exp(dt * A) of one step, (b, k, C, N, D), written to `out`."""
        return torch.mul(self.dt[step].unsqueeze(-2), self.A.unsqueeze(1), out=out).exp_()

    def chunk_decay(self) -> Tensor:
        """The decay over each whole chunk, (b, k, C, N, D)."""
        return (self.dt.sum(0).unsqueeze(-2) * self.A.unsqueeze(1)).exp_()

    def take(self, chunks: slice) -> Block:
        """The same block restricted to some of its chunks."""
        dt, du, Bs, Cs = (
            t[:, :, :, chunks].contiguous() for t in (self.dt, self.du, self.Bs, self.Cs)
        )
        return Block(dt, du, Bs, Cs, self.A)


def _rows(matrix: Tensor) -> Tensor:
    """(..., N, D) as a batch of matrices."""
    return matrix.flatten(0, -3)


def _carry(local: Tensor, decay: Tensor, start: Tensor | None, chunks: range) -> None:
    """Convert, in place, the state added by each chunk to the state entering it.

    local, decay: (b, k, C, N, D); start: (b, k, N, D), the state entering the first of `chunks`, or
    None for zeros.
    """
    carried = torch.zeros_like(local[:, :, 0]) if start is None else start
    for chunk in chunks:
        leaving = torch.addcmul(local[:, :, chunk], decay[:, :, chunk], carried)
        local[:, :, chunk] = carried
        carried = leaving


def entering_states(block: Block, start: Tensor | None) -> Tensor:
    """The state entering each chunk, (b, k, C, N, D), if `start` (b, k, N, D) enters the first."""
    state = block.zero_state()
    chunks = state.shape[2]
    if chunks > 1:
        decay = torch.empty_like(state)
        for step in range(block.dt.shape[0]):
            state.mul_(block.decay(step, out=decay))
            state.addcmul_(block.Bs[step].unsqueeze(-1), block.du[step].unsqueeze(-2))
    _carry(state, block.chunk_decay(), start, range(chunks))
    return state


def outputs(block: Block, entering: Tensor) -> tuple[Tensor, Tensor]:
    """y = sum_n Cs h: (T, b, k, C, D), and the states leaving each chunk (b, k, C, N, D)."""
    state = entering.clone()
    decay = torch.empty_like(state)
    y = torch.empty_like(block.du)
    for step in range(block.dt.shape[0]):
        state.mul_(block.decay(step, out=decay))
        state.addcmul_(block.Bs[step].unsqueeze(-1), block.du[step].unsqueeze(-2))
        torch.bmm(
            _rows(block.Cs[step].unsqueeze(-2)),
            _rows(state),
            out=_rows(y[step].unsqueeze(-2)),
        )
    return y, state


def entering_adjoints(block: Block, dy: Tensor, dlast: Tensor | None) -> Tensor:
    """The gradient (b, k, C, N, D) with respect to the state that leaves each chunk.

    dy: (T, b, k, C, D); dlast: (b, k, N, D), the gradient of the last state, or None.
    """
    adjoint = block.zero_state()
    chunks = adjoint.shape[2]
    decay = torch.empty_like(adjoint)
    if chunks > 1:
        for step in reversed(range(block.dt.shape[0])):
            adjoint.addcmul_(block.Cs[step].unsqueeze(-1), dy[step].unsqueeze(-2))
            adjoint.mul_(block.decay(step, out=decay))
    _carry(adjoint, block.chunk_decay(), dlast, range(chunks - 1, -1, -1))
    return adjoint


@dataclass(frozen=True)
class Gradients:
    """For one block: ddt (without the part through du) and ddu (T, b, k, C, D); dBs, dCs (T, b, k,
    C, N); dA (k, N, D); dstart (b, k, N, D), of the state entering the first chunk."""

    ddt: Tensor
    ddu: Tensor
    dBs: Tensor
    dCs: Tensor
    dA: Tensor
    dstart: Tensor


def gradients(
    block: Block, dy: Tensor, entering: Tensor, adjoint: Tensor, A_wanted: bool
) -> Gradients:
    """Recompute every chunk's states from the one entering it, then walk through them backwards.

    entering, adjoint: (b, k, C, N, D), the state entering and the gradient of the state leaving
    each chunk. Holds 2 * T states of the block.
    """
    steps = block.dt.shape[0]
    states = block.dt.new_empty(steps, *entering.shape)
    decays = torch.empty_like(states)
    state = entering
    for step in range(steps):
        torch.mul(state, block.decay(step, out=decays[step]), out=states[step])
        state = states[step]
        state.addcmul_(block.Bs[step].unsqueeze(-1), block.du[step].unsqueeze(-2))

    dCs = torch.bmm(_rows(states), _rows(dy.unsqueeze(-1))).view_as(block.Cs)
    ddt, ddu = torch.empty_like(block.dt), torch.empty_like(block.du)
    dBs = torch.empty_like(block.Bs)
    dA = block.zero_state()
    g = adjoint.clone(memory_format=torch.contiguous_format)
    q = torch.empty_like(g)
    for step in reversed(range(steps)):
        g.addcmul_(block.Cs[step].unsqueeze(-1), dy[step].unsqueeze(-2))
        torch.bmm(
            _rows(g),
            _rows(block.du[step].unsqueeze(-1)),
            out=_rows(dBs[step].unsqueeze(-1)),
        )
        torch.bmm(
            _rows(block.Bs[step].unsqueeze(-2)),
            _rows(g),
            out=_rows(ddu[step].unsqueeze(-2)),
        )
        g.mul_(decays[step])
        # q = g a h_{l-1} is what dt * A multiplies in both their gradients.
        torch.mul(g, states[step - 1] if step else entering, out=q)
        if A_wanted:
            dA.addcmul_(q, block.dt[step].unsqueeze(-2))
        torch.sum(q.mul_(block.A.unsqueeze(1)), dim=-2, out=ddt[step])
    return Gradients(ddt, ddu, dBs, dCs, dA.sum((0, 2)), g[:, :, 0])
