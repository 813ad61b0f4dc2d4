"""The scan forwards, and the pass that finds what each split of a sequence adds."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels.tile import (
    advance,
    flat_channels,
    fold_splits,
    locate,
    start,
    sum_states,
    tile_channels,
    tile_states,
    walk,
)

LOG2E = tl.constexpr(1.4426950408889634)
# Sizes change from image to image: none of them may compile a kernel anew.
UNSPECIALISED = (
    "D", "H", "W", "K", "blocks", "splits", "split_chunks", "chunks", "first_direction",
    "first_block", "x_b", "x_k", "x_l", "x_d", "dt_b", "dt_k", "dt_l", "dt_d", "bc_b", "bc_k",
    "bc_l", "bc_n", "directions", "state_d", "one",
)  # fmt: skip


@triton.jit(do_not_specialize=UNSPECIALISED)
def forward_kernel(
    x, dt, bc, A, y, states, last, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, dt_d, bc_b, bc_k, bc_l, bc_n, state_d, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr,
    IMAGE: tl.constexpr, SAVE: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """x, y share strides; y is added to (IMAGE) or stored. Chunks of T steps, U at a time."""
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    L = H * W
    n = tile_states(NH, NL, DL, one)
    d = block * DH * DL + tile_channels(DH, NL, DL, one)
    flat_d = block * DH * DL + flat_channels(DH, DL)
    tile_mask = (n < N) & (d < D)
    tile = tl.max_contiguous(d * state_d + n * one, (1, 2, 4, 8))
    dt_mask = d < D

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    x += wide_b * x_b + k * x_k
    y += wide_b * x_b + k * x_k + flat_d * x_d
    dt += wide_b * dt_b + k.to(tl.int64) * dt_k
    bc += wide_b * bc_b + k * bc_k
    x_ = x + tl.max_contiguous(d * x_d, (1, 2, 4, 8))
    dt_ = dt + tl.max_contiguous(d * dt_d, (1, 2, 4, 8))
    Bs_ = bc + tl.max_contiguous(n * bc_n, (1, 2, 4, 8))
    Cs_ = Bs_ + N * bc_n
    A2 = tl.load(A + k * D * N + tile, mask=tile_mask, other=0.0) * LOG2E

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    if SPLIT:
        h = fold_splits(
            h, A2, split_state, split_dt, sequence * splits, s, splits, D, N, tile, tile_mask,
            d, dt_mask, False,
        )  # fmt: skip
    first = s * split_chunks
    run, move, turn = walk(k, H, W, IMAGE)
    at, inner = start(first * T, k, H, W, run, IMAGE)
    for chunk in range(first, tl.minimum(first + split_chunks, chunks)):
        if SAVE:
            tl.store(states + (sequence * chunks + chunk) * D * N + tile, h, mask=tile_mask)
        for segment in range(T // U):
            step = chunk * T + segment * U
            positions = ()
            xs = ()
            dts = ()
            Bs = ()
            Cs = ()
            for i in tl.static_range(U):
                p = at.to(tl.int64)
                room = tl.where(step + i < L, D, 0)
                n_room = tl.where(step + i < L, N, 0)
                positions = positions + (p,)
                xs = xs + (tl.load(x_ + p * x_l, mask=d < room, other=0.0),)
                dts = dts + (tl.load(dt_ + p * dt_l, mask=d < room, other=0.0),)
                Bs = Bs + (tl.load(Bs_ + p * bc_l, mask=n < n_room, other=0.0),)
                Cs = Cs + (tl.load(Cs_ + p * bc_l, mask=n < n_room, other=0.0),)
                at, inner = advance(at, inner, run, move, turn)
            for i in tl.static_range(U):
                h = tl.exp2(A2 * dts[i]) * h + Bs[i] * (dts[i] * xs[i].to(tl.float32))
                value = sum_states(h * Cs[i])
                mask = flat_d < tl.where(step + i < L, D, 0)
                if IMAGE:
                    tl.atomic_add(y + positions[i] * x_l, value, mask=mask, sem="relaxed")
                else:
                    tl.store(y + positions[i] * x_l, value, mask=mask)
    if LAST:
        if s == splits - 1:
            tl.store(last + sequence * D * N + tile, h, mask=tile_mask)


@triton.jit(do_not_specialize=UNSPECIALISED)
def split_kernel(
    x, dt, bc, A, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, dt_d, bc_b, bc_k, bc_l, bc_n, state_d, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, IMAGE: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """What each split adds to a state of zero, and its sum of dt.

    Backwards the state is the adjoint's, x stands for dy, and Cs for Bs.
    """
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    L = H * W
    n = tile_states(NH, NL, DL, one)
    d = block * DH * DL + tile_channels(DH, NL, DL, one)
    tile_mask = (n < N) & (d < D)
    tile = tl.max_contiguous(d * state_d + n * one, (1, 2, 4, 8))
    dt_mask = d < D

    wide_b = b.to(tl.int64)
    x_ = x + wide_b * x_b + k * x_k + tl.max_contiguous(d * x_d, (1, 2, 4, 8))
    dt_ = dt + wide_b * dt_b + k.to(tl.int64) * dt_k + tl.max_contiguous(d * dt_d, (1, 2, 4, 8))
    map_ = bc + wide_b * bc_b + k * bc_k + tl.max_contiguous(n * bc_n, (1, 2, 4, 8))
    if BACKWARD:
        map_ += N * bc_n
    A2 = tl.load(A + k * D * N + tile, mask=tile_mask, other=0.0) * LOG2E

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    total = tl.zeros((1, DH, NL, DL), tl.float32)
    first = s * split_chunks * T
    end = tl.minimum(first + split_chunks * T, L)
    run, move, turn = walk(k, H, W, IMAGE)
    if BACKWARD:
        # The way back from the last step is the opposite direction's way.
        first = L - end
        end = L - s * split_chunks * T
        if IMAGE:
            k = (k + 2) % 4
        run, move, turn = walk(k, H, W, IMAGE)
    at, inner = start(first, k, H, W, run, IMAGE)
    for step in range(first, end, U):
        xs = ()
        dts = ()
        maps = ()
        for i in tl.static_range(U):
            p = at.to(tl.int64)
            if BACKWARD:
                if not IMAGE:
                    p = L - 1 - p
            room = tl.where(step + i < end, D, 0)
            n_room = tl.where(step + i < end, N, 0)
            xs = xs + (tl.load(x_ + p * x_l, mask=d < room, other=0.0),)
            dts = dts + (tl.load(dt_ + p * dt_l, mask=d < room, other=0.0),)
            maps = maps + (tl.load(map_ + p * bc_l, mask=n < n_room, other=0.0),)
            at, inner = advance(at, inner, run, move, turn)
        for i in tl.static_range(U):
            a = tl.exp2(A2 * dts[i])
            if BACKWARD:
                h = a * (h + maps[i] * xs[i].to(tl.float32))
            else:
                h = a * h + maps[i] * (dts[i] * xs[i].to(tl.float32))
            total += dts[i]
    row = ((b * K + k) * splits + s).to(tl.int64)
    tl.store(split_state + row * D * N + tile, h, mask=tile_mask)
    tl.store(split_dt + row * D + d, total, mask=dt_mask)
