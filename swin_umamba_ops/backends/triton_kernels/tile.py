"""What the kernels share: how a tile of states lies on the lanes, and where steps lie in memory.

A program of one warp holds a tile of NH * NL states by DH * DL channels as a tensor
[NH, DH, NL, DL] with NL * DL = 32. Triton spreads a tensor over lanes from its last axis on, so
the last two axes are the lanes and the first two each lane's registers: a sum over states takes
log2(NL) shuffles, one over channels log2(DL), and all other sums stay in a lane. State n is
nh * NL + nl, channel d is dh * DL + dl.

Memory accesses must keep to that layout, or values are rearranged between lanes at each step.
Triton gives an access lanes along the axes of the longest contiguity first, and several values a
lane where it can prove them aligned. So sizes and strides are passed as unspecialised integers,
offsets between lanes are multiplied by a `one` of that kind, and `tl.max_contiguous` claims a
contiguity that puts the axes in the tile's order; without a known alignment nothing else follows
from it. Offsets between a lane's registers are constants, added last: they end up in the load
instructions.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lane_states(NL: tl.constexpr, DL: tl.constexpr, one):
    """State numbers within a register, [1, 1, NL, DL]."""
    nl = tl.arange(0, NL)[None, None, :, None] * one
    return nl + tl.arange(0, DL)[None, None, None, :] * (1 - one)


@triton.jit
def lane_channels(NL: tl.constexpr, DL: tl.constexpr, one):
    """Channel numbers within a register, [1, 1, NL, DL]."""
    dl = tl.arange(0, DL)[None, None, None, :] * one
    return dl + tl.arange(0, NL)[None, None, :, None] * (1 - one)


@triton.jit
def register_states(NH: tl.constexpr, NL: tl.constexpr):
    """Where each register's states start, [NH, 1, 1, 1]."""
    return tl.arange(0, NH)[:, None, None, None] * NL


@triton.jit
def register_channels(DH: tl.constexpr, DL: tl.constexpr):
    """Where each register's channels start, [1, DH, 1, 1]."""
    return tl.arange(0, DH)[None, :, None, None] * DL


@triton.jit
def load_row(at, lanes, registers, stride, limit, EXACT: tl.constexpr):
    """The values at lanes + registers < limit along an axis of `stride`, else 0; in the tile's
    layout. EXACT: all of them are."""
    at += lanes * stride
    at = tl.max_contiguous(at + registers * stride, (1, 2, 4, 8))
    if EXACT:
        values = tl.load(at)
    else:
        values = tl.load(at, mask=lanes + registers < limit, other=0.0)
    return values.to(tl.float32)


@triton.jit
def load_tile(at, lanes, registers, mask, EXACT: tl.constexpr):
    """A tile's values at lanes + registers where `mask`, else 0. EXACT: it holds everywhere."""
    at += lanes
    at = tl.max_contiguous(at + registers, (1, 2, 4, 8))
    if EXACT:
        values = tl.load(at)
    else:
        values = tl.load(at, mask=mask, other=0.0)
    return values


@triton.jit
def store_tile(at, lanes, registers, values, mask, EXACT: tl.constexpr):
    """The opposite of `load_tile`."""
    at += lanes
    at = tl.max_contiguous(at + registers, (1, 2, 4, 8))
    if EXACT:
        tl.store(at, values)
    else:
        tl.store(at, values, mask=mask)


@triton.jit
def flat_states(NH: tl.constexpr, NL: tl.constexpr):
    """State numbers, [NH, NL]: as `sum_channels` leaves them."""
    return tl.arange(0, NH)[:, None] * NL + tl.arange(0, NL)[None, :]


@triton.jit
def flat_channels(DH: tl.constexpr, DL: tl.constexpr):
    """Channel numbers within the tile, [DH, DL]: as `sum_states` leaves them."""
    return tl.arange(0, DH)[:, None] * DL + tl.arange(0, DL)[None, :]


@triton.jit
def sum_states(v):
    """[NH, DH, NL, DL] -> [DH, DL]."""
    return tl.sum(tl.sum(v, 0), 1)


@triton.jit
def sum_states_in_place(v):
    """[NH, DH, NL, DL] -> [1, DH, NL, DL]: every lane gets its channels' sums."""
    return tl.sum(tl.sum(v, 0, keep_dims=True), 2, keep_dims=True)


@triton.jit
def sum_channels(v):
    """[NH, DH, NL, DL] -> [NH, NL]."""
    return tl.sum(tl.sum(v, 1), 2)


@triton.jit
def locate(pid, directions, blocks, splits, first_direction, first_block):
    """What the program works on: image b, direction k, split s and block of channels."""
    block = pid % blocks
    pid = pid // blocks
    s = pid % splits
    pid = pid // splits
    return pid // directions, first_direction + pid % directions, s, first_block + block


@triton.jit
def walk(k, H, W, IMAGE: tl.constexpr):
    """How direction k moves: the position after p is p + move, except that each `run`-th is
    p + turn. Sequences that are no images go straight on."""
    run = H * W
    move = 1
    turn = 1
    if IMAGE:
        columns = k % 2 == 1
        sign = tl.where(k < 2, 1, -1)
        run = tl.where(columns, H, run)
        move = sign * tl.where(columns, W, 1)
        turn = sign * tl.where(columns, 1 - (H - 1) * W, 1)
    return run, move, turn


@triton.jit
def start(step, k, H, W, run, IMAGE: tl.constexpr):
    """The position of a step, and how many steps of its run lie before it."""
    at = step
    inner = step % run
    if IMAGE:
        columns = k % 2 == 1
        at = tl.where(columns, inner * W + step // run, step)
        at = tl.where(k < 2, at, H * W - 1 - at)
    return at, inner


@triton.jit
def advance(at, inner, run, move, turn, going):
    """The next step's position; or, if not `going`, the same one."""
    inner += 1
    turns = inner == run
    after = at + tl.where(turns, turn, move)
    return tl.where(going, after, at), tl.where(turns, 0, inner)


@triton.jit
def retreat(at, inner, run, move, turn):
    """The position of the step before."""
    turns = inner == 0
    return at - tl.where(turns, turn, move), tl.where(turns, run, inner) - 1


@triton.jit
def fold_splits(
    h, A2, split_state, split_dt, row, s, splits, D, first_d, N, lanes, registers, mask, channels,
    EXACT: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Fold what the splits before this one (backwards: behind it) add into the entering `h`:
    h <- exp(A sum dt) h + what the split adds. `row` is the sequence's first split."""
    count = s
    if BACKWARD:
        count = splits - 1 - s
    for i in range(count):
        at = i
        if BACKWARD:
            at = splits - 1 - i
        base = (row + at).to(tl.int64) * D + first_d
        added = load_tile(split_state + base * N, lanes, registers, mask, EXACT)
        dt = tl.load(split_dt + base + channels, mask=channels < D - first_d, other=0.0)
        h = tl.exp2(A2 * dt) * h + added
    return h
