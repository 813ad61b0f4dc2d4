"""Shared by the scan kernels: how a tile of states is laid out over lanes, and steps in memory.

A program of one warp holds a tile of NH * NL states by DH * DL channels as a tensor [NH, DH, NL,
DL] with NL * DL = 32. Triton distributes a tensor over lanes starting from its last axis, so the
last two axes are the lanes and the first two each lane's registers: a sum over states takes
log2(NL) shuffles, one over channels log2(DL), and all other sums stay in a lane. State n is nl * NH
+ nh, channel d is dl * DH + dh: what a lane holds is adjacent in memory.

Memory accesses must keep that layout, or values are exchanged between lanes at each step. Triton
assigns lanes along the axes with the longest contiguity first, and several values per lane if it
can prove their alignment. So sizes and strides are passed as unspecialized integers, offsets
between lanes are multiplied by such a `one`, and `tl.max_contiguous` claims a contiguity that puts
the axes in the tile's order; without a known alignment nothing else follows from it. If addresses
are aligned to PIECE bytes (0: unknown), the claim puts one of the register axes first, and a lane's
values along it are accessed in pieces of that many bytes. Offsets between a lane's registers are
constants, added last: they end up in the load instructions.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def lane_states(NH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr, one):
    """Each lane's first state, [1, 1, NL, DL]."""
    nl = tl.arange(0, NL)[None, None, :, None] * one
    return nl * NH + tl.arange(0, DL)[None, None, None, :] * (1 - one)


@triton.jit
def lane_channels(DH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr, one):
    """Each lane's first channel, [1, 1, NL, DL]."""
    dl = tl.arange(0, DL)[None, None, None, :] * one
    return dl * DH + tl.arange(0, NL)[None, None, :, None] * (1 - one)


@triton.jit
def register_states(NH: tl.constexpr):
    """Which of its lane's states a register holds, [NH, 1, 1, 1]."""
    return tl.arange(0, NH)[:, None, None, None]


@triton.jit
def register_channels(DH: tl.constexpr):
    """Which of its lane's channels a register holds, [1, DH, 1, 1]."""
    return tl.arange(0, DH)[None, :, None, None]


@triton.jit
def _along_states(at, registers, NH: tl.constexpr, PIECE: tl.constexpr):
    """Addresses in the tile's layout; PIECE: those of a lane's states are adjacent, and aligned to
    this many bytes, or to all of a lane's states; 0: neither is known."""
    at += registers  # set here, since Triton drops hints on arguments
    if PIECE > 0:
        BYTES: tl.constexpr = min(NH * at.dtype.element_ty.primitive_bitwidth // 8, PIECE)
        at = tl.max_contiguous(tl.multiple_of(at, (BYTES, 1, 1, 1)), (16, 2, 4, 8))
    else:
        at = tl.max_contiguous(at, (1, 2, 4, 8))
    return at


@triton.jit
def _load(at, mask, EXACT: tl.constexpr):
    if EXACT:
        values = tl.load(at)
    else:
        values = tl.load(at, mask=mask, other=0.0)
    return values


@triton.jit
def load_states(at, registers, mask, NH: tl.constexpr, EXACT: tl.constexpr, PIECE: tl.constexpr):
    """The values at each lane's address `at` and its registers' offsets where `mask`, else 0; of
    states, or of states and channels. EXACT: the mask is true everywhere."""
    at = _along_states(at, registers, NH, PIECE)
    return _load(at, mask, EXACT)


@triton.jit
def store_states(
    at, registers, values, mask, NH: tl.constexpr, EXACT: tl.constexpr, PIECE: tl.constexpr
):
    """Store states: the inverse of `load_states`."""
    at = _along_states(at, registers, NH, PIECE)
    if EXACT:
        tl.store(at, values)
    else:
        tl.store(at, values, mask=mask)


@triton.jit
def store_checkpoint(at, registers, values, NH: tl.constexpr):
    """Store the states of a tile at an aligned address, for the same program to read soon."""
    tl.store(_along_states(at, registers, NH, 16), values, eviction_policy="evict_last")


@triton.jit
def load_checkpoint(at, registers, NH: tl.constexpr):
    """Load the states of a tile from an aligned address, written by the same program."""
    return tl.load(_along_states(at, registers, NH, 16), eviction_policy="evict_last")


@triton.jit
def load_channels(at, registers, mask, DH: tl.constexpr, EXACT: tl.constexpr, PIECE: tl.constexpr):
    """As `load_states`, for channels."""
    at += registers
    if PIECE > 0:
        BYTES: tl.constexpr = min(DH * at.dtype.element_ty.primitive_bitwidth // 8, PIECE)
        at = tl.max_contiguous(tl.multiple_of(at, (1, BYTES, 1, 1)), (2, 16, 4, 8))
    else:
        at = tl.max_contiguous(at, (1, 2, 4, 8))
    return _load(at, mask, EXACT)


@triton.jit
def load_decay(
    A, registers, mask, NH: tl.constexpr, EXACT: tl.constexpr, PIECE: tl.constexpr,
    IMAGE: tl.constexpr,
):  # fmt: skip
    """log2(e) A: for images A is given as log(-A)."""
    values = load_states(A, registers, mask, NH, EXACT, PIECE)
    if IMAGE:
        values = -tl.exp(values)
    return LOG2E * values


@triton.jit
def load_maps(at, registers, mask, NH: tl.constexpr, EXACT: tl.constexpr, PIECE: tl.constexpr):
    """As `load_states`, for Bs or Cs, in their own dtype: `unpack_maps` casts them to float32 once
    they have arrived. If a lane's 16-bit values are not aligned as a whole, pairs may be."""
    ITEM: tl.constexpr = at.dtype.element_ty.primitive_bitwidth // 8
    if min(NH * ITEM, 16) <= PIECE:
        values = load_states(at, registers, mask, NH, EXACT, PIECE)
    elif ITEM == 2 and PIECE >= 4:
        pairs = at.to(tl.pointer_type(tl.int32)) + tl.arange(0, NH // 2)[:, None, None, None]
        values = tl.load(tl.max_contiguous(pairs, (1, 2, 4, 8)))
    else:
        values = load_states(at, registers, mask, NH, EXACT, 0)
    return values


@triton.jit
def inner_stride(stride, IMAGE: tl.constexpr, INDEX_64BIT: tl.constexpr):
    """The stride between channels, or values in bc: 1 in images, otherwise 64-bit if offsets need
    it."""
    if IMAGE:
        stride = 1
    elif INDEX_64BIT:
        stride = stride.to(tl.int64)
    return stride


@triton.jit
def unpack_maps(values, dtype: tl.constexpr, NH: tl.constexpr):
    """What `load_maps` read from memory of `dtype`, in float32, [NH, 1, NL, DL]."""
    if values.dtype == tl.int32:
        low = values.to(tl.int16).to(dtype, bitcast=True)
        high = (values >> 16).to(tl.int16).to(dtype, bitcast=True)
        pairs = tl.permute(tl.join(low, high), (0, 4, 1, 2, 3))
        values = tl.reshape(pairs, (NH, 1, values.shape[2], values.shape[3]))
    return values.to(tl.float32)


@triton.jit
def _fold(v, R: tl.constexpr, X: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, Z: tl.constexpr):
    """Sums over Q of [R, X, P, Q, Z], each needed by only one lane: [R / Q or 1, X, P * Q, Z].

    Two lanes exchange half of their registers, then add: half as many shuffles in each round as if
    all lanes received all sums.
    """
    if R > 1 and Q > 1:
        v = tl.reshape(v, (2, R // 2, X, P, 2, Q // 2, Z))
        low, high = tl.split(tl.permute(v, (1, 2, 3, 4, 5, 6, 0)))
        first = tl.arange(0, 2)[None, None, None, :, None, None] == 0
        kept = tl.where(first, low, high)
        given = tl.where(first, high, low).to(tl.int32, bitcast=True)
        # Of the sum with the other lane's, as integers, everything but our own is the other's,
        # exactly.
        taken = tl.sum(given, 3, keep_dims=True) - given
        v = kept + taken.to(tl.float32, bitcast=True)
        v = _fold(tl.reshape(v, (R // 2, X, 2 * P, Q // 2, Z)), R // 2, X, 2 * P, Q // 2, Z)
    else:
        v = tl.broadcast_to(tl.sum(v, 3, keep_dims=True), (R, X, P, Q, Z))
        v = tl.reshape(v, (R, X, P * Q, Z))
    return v


@triton.jit
def sum_states(v, DH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr):
    """[NH, DH, NL, DL] -> [1, DH / NL or 1, NL, DL]: sums of the channels of `channel_of_lane`."""
    v = _fold(tl.reshape(tl.sum(v, 0), (DH, 1, 1, NL, DL)), DH, 1, 1, NL, DL)
    return tl.reshape(v, (1, max(DH // NL, 1), NL, DL))


@triton.jit
def sum_channels(v, NH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr):
    """[NH, DH, NL, DL] -> [NH / DL or 1, 1, NL, DL]: sums of the states of `state_of_lane`."""
    v = _fold(tl.reshape(tl.sum(v, 1), (NH, NL, 1, DL, 1)), NH, NL, 1, DL, 1)
    return tl.reshape(v, (max(NH // DL, 1), 1, NL, DL))


@triton.jit
def channel_of_lane(DH: tl.constexpr, NL: tl.constexpr):
    """The channels whose sums a lane holds, [1, DH / NL or 1, NL, 1], and whether it is the first
    lane that holds them."""
    nl = tl.arange(0, NL)[None, None, :, None]
    register = tl.arange(0, max(DH // NL, 1))[None, :, None, None]
    return nl * DH // NL + register, nl % max(NL // DH, 1) == 0


@triton.jit
def state_of_lane(NH: tl.constexpr, DL: tl.constexpr):
    """The states whose sums a lane holds, [NH / DL or 1, 1, 1, DL], and whether it is the first
    lane that holds them."""
    dl = tl.arange(0, DL)[None, None, None, :]
    register = tl.arange(0, max(NH // DL, 1))[:, None, None, None]
    return dl * NH // DL + register, dl % max(DL // NH, 1) == 0


@triton.jit
def _pick(v, R: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, Z: tl.constexpr):
    """The registers of [R, P, Q, Z] whose sums `_fold` leaves in a lane."""
    if R > 1 and Q > 1:
        v = tl.reshape(v, (2, R // 2, P, 2, Q // 2, Z))
        low, high = tl.split(tl.permute(v, (1, 2, 3, 4, 5, 0)))
        v = tl.where(tl.arange(0, 2)[None, None, :, None, None] == 0, low, high)
        v = _pick(tl.reshape(v, (R // 2, 2 * P, Q // 2, Z)), R // 2, 2 * P, Q // 2, Z)
    else:
        v = tl.reshape(v, (R, P * Q, Z))
    return v


@triton.jit
def channels_of_lane(v, DH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr):
    """[1, DH, NL, DL], equal in all lanes of a channel, -> the values of `channel_of_lane`."""
    v = _pick(tl.reshape(v, (DH, 1, NL, DL)), DH, 1, NL, DL)
    return tl.reshape(v, (1, max(DH // NL, 1), NL, DL))


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
    """The steps of direction k: the position after p is p + move, except that after each `run`-th
    one it is p + turn. Sequences that are not images go straight on."""
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
    """The position of a step, and the number of steps before it in its run."""
    at = step
    inner = step % run
    if IMAGE:
        columns = k % 2 == 1
        at = tl.where(columns, inner * W + step // run, step)
        at = tl.where(k < 2, at, H * W - 1 - at)
    return at, inner


@triton.jit
def advance(at, inner, run, move, turn, going):
    """The next step's position, or the same one if not `going`."""
    inner += 1
    turns = inner == run
    after = at + tl.where(turns, turn, move)
    return tl.where(going, after, at), tl.where(turns, 0, inner)


@triton.jit
def retreat(at, inner, run, move, turn, going):
    """The previous step's position, or the same one if not `going`."""
    turns = inner == 0
    before = at - tl.where(turns, turn, move)
    return tl.where(going, before, at), tl.where(going, tl.where(turns, run, inner) - 1, inner)


@triton.jit
def fold_splits(
    h, A2, split_state, split_dt, row, s, splits, parts, D, N, first_d, lanes, registers, mask,
    dl, dh, own_d, NH: tl.constexpr, DH: tl.constexpr, EVEN: tl.constexpr, EXACT: tl.constexpr,
    PIECE: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Fold the contributions of the splits before this one (in the backward pass: after it), each
    in several parts, into the entering `h`: h <- exp(A sum dt) h + what the part adds. `row` is the
    sequence's first."""
    count = s * parts
    last = splits * parts - 1
    if BACKWARD:
        count = last + 1 - (s + 1) * parts
    # Load several parts at a time: nothing else hides their latency.
    for i in tl.range(count, loop_unroll_factor=4):
        at = i
        if BACKWARD:
            at = last - i
        base = (row + at).to(tl.int64) * D + first_d
        added = load_states(split_state + base * N + lanes, registers, mask, NH, EXACT, PIECE)
        dt = load_channels(split_dt + base + dl, dh, own_d, DH, EVEN, PIECE)
        h = tl.exp2(A2 * dt) * h + added
    return h
