"""The scan forwards, and the pass that finds what each split of a sequence adds."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.tile import (
    advance,
    flat_channels,
    fold_splits,
    lane_channels,
    lane_states,
    load_row,
    load_tile,
    locate,
    register_channels,
    register_states,
    start,
    store_tile,
    sum_states,
    walk,
)

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=unspecialised.SCAN)
def forward_kernel(
    x, dt, bc, A, y, states, last, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, bc_b, bc_k, bc_l, bc_n, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr,
    IMAGE: tl.constexpr, SAVE: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """x, y share strides; y is added to (IMAGE) or stored. Chunks of T steps, U at a time.

    In images channels, and states in bc, are adjacent. EVEN: the tile divides D.
    """
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    if IMAGE:
        x_d = 1
        bc_n = 1
    L = H * W
    FULL: tl.constexpr = N == NH * NL
    nl = lane_states(NL, DL, one)
    nh = register_states(NH, NL)
    first_d = block * DH * DL
    dl = lane_channels(NL, DL, one)
    dh = register_channels(DH, DL)
    d_end = D - first_d
    flat_d = flat_channels(DH, DL)
    tile_mask = (nl + nh < N) & (dl + dh < d_end)
    lanes = dl * N + nl
    registers = dh * N + nh
    EXACT: tl.constexpr = EVEN and FULL

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    x += wide_b * x_b + k * x_k + first_d * x_d
    y += wide_b * x_b + k * x_k + first_d * x_d
    dt += wide_b * dt_b + k.to(tl.int64) * dt_k + first_d * x_d
    bc += wide_b * bc_b + k * bc_k
    A2 = LOG2E * load_tile(A + (k * D + first_d) * N, lanes, registers, tile_mask, EXACT)

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    if SPLIT:
        h = fold_splits(
            h, A2, split_state, split_dt, sequence * splits, s, splits, D, first_d, N,
            lanes, registers, tile_mask, dl + dh, EXACT, False,
        )  # fmt: skip
    first = s * split_chunks
    run, move, turn = walk(k, H, W, IMAGE)
    at, inner = start(first * T, k, H, W, run, IMAGE)
    for chunk in range(first, tl.minimum(first + split_chunks, chunks)):
        if SAVE:
            row = ((sequence * chunks + chunk) * D + first_d) * N
            store_tile(states + row, lanes, registers, h, tile_mask, EXACT)
        for segment in range(T // U):
            step = chunk * T + segment * U
            positions = ()
            xs = ()
            dts = ()
            Bs = ()
            Cs = ()
            for i in tl.static_range(U):
                p = at.to(tl.int64)
                positions = positions + (p,)
                xs = xs + (load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN),)
                dt_i = load_row(dt + p * dt_l, dl, dh, x_d, d_end, EVEN)
                # Steps past the end change nothing.
                dts = dts + (tl.where(step + i < L, dt_i, 0.0),)
                Bs = Bs + (load_row(bc + p * bc_l, nl, nh, bc_n, N, FULL),)
                Cs = Cs + (load_row(bc + p * bc_l + N * bc_n, nl, nh, bc_n, N, FULL),)
                at, inner = advance(at, inner, run, move, turn, step + i + 1 < L)
            for i in tl.static_range(U):
                h = tl.exp2(A2 * dts[i]) * h + Bs[i] * (dts[i] * xs[i])
                value = sum_states(h * Cs[i])
                mask = flat_d < tl.where(step + i < L, d_end, 0)
                to = y + positions[i] * x_l + flat_d * x_d
                if IMAGE:
                    tl.atomic_add(to, value, mask=mask, sem="relaxed")
                else:
                    tl.store(to, value, mask=mask)
    if LAST:
        if s == splits - 1:
            store_tile(last + (sequence * D + first_d) * N, lanes, registers, h, tile_mask, EXACT)


@triton.jit(do_not_specialize=unspecialised.SCAN)
def split_kernel(
    x, dt, bc, A, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, bc_b, bc_k, bc_l, bc_n, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr,
    IMAGE: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """What each split adds to a state of zero, and its sum of dt.

    Backwards the state is the adjoint's, x stands for dy, and Cs for Bs.
    """
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    if IMAGE:
        x_d = 1
        bc_n = 1
    L = H * W
    FULL: tl.constexpr = N == NH * NL
    nl = lane_states(NL, DL, one)
    nh = register_states(NH, NL)
    first_d = block * DH * DL
    dl = lane_channels(NL, DL, one)
    dh = register_channels(DH, DL)
    d_end = D - first_d
    tile_mask = (nl + nh < N) & (dl + dh < d_end)
    lanes = dl * N + nl
    registers = dh * N + nh
    EXACT: tl.constexpr = EVEN and FULL

    wide_b = b.to(tl.int64)
    x += wide_b * x_b + k * x_k + first_d * x_d
    dt += wide_b * dt_b + k.to(tl.int64) * dt_k + first_d * x_d
    bc += wide_b * bc_b + k * bc_k
    if BACKWARD:
        bc += N * bc_n
    A2 = LOG2E * load_tile(A + (k * D + first_d) * N, lanes, registers, tile_mask, EXACT)

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    total = tl.zeros((1, DH, NL, DL), tl.float32)
    first = s * split_chunks * T
    end = tl.minimum(first + split_chunks * T, L)
    way = k
    if BACKWARD:
        # The way back from the last step is the opposite direction's way.
        first = L - end
        end = L - s * split_chunks * T
        if IMAGE:
            way = (k + 2) % 4
    run, move, turn = walk(way, H, W, IMAGE)
    at, inner = start(first, way, H, W, run, IMAGE)
    for step in range(first, end, U):
        xs = ()
        dts = ()
        maps = ()
        for i in tl.static_range(U):
            p = at.to(tl.int64)
            if BACKWARD:
                if not IMAGE:
                    p = L - 1 - p
            xs = xs + (load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN),)
            dt_i = load_row(dt + p * dt_l, dl, dh, x_d, d_end, EVEN)
            dts = dts + (tl.where(step + i < end, dt_i, 0.0),)
            map_i = load_row(bc + p * bc_l, nl, nh, bc_n, N, FULL)
            if BACKWARD:
                map_i = tl.where(step + i < end, map_i, 0.0)
            maps = maps + (map_i,)
            at, inner = advance(at, inner, run, move, turn, step + i + 1 < end)
        for i in tl.static_range(U):
            a = tl.exp2(A2 * dts[i])
            if BACKWARD:
                h = a * (h + maps[i] * xs[i])
            else:
                h = a * h + maps[i] * (dts[i] * xs[i])
            total += dts[i]
    row = ((b * K + k) * splits + s).to(tl.int64) * D + first_d
    store_tile(split_state + row * N, lanes, registers, h, tile_mask, EXACT)
    tl.store(split_dt + row + dl + dh, total, mask=dl + dh < d_end)
