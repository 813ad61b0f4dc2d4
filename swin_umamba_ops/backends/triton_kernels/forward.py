"""The forward scan, and the pass that computes what each split of a sequence adds."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.project import load_staged, stage_dt, staged_row
from swin_umamba_ops.backends.triton_kernels.tile import (
    advance,
    channel_of_lane,
    fold_splits,
    inner_stride,
    lane_channels,
    lane_states,
    load_channels,
    load_decay,
    load_maps,
    locate,
    register_channels,
    register_states,
    start,
    store_states,
    sum_states,
    unpack_maps,
    walk,
)


@triton.jit
def load_steps(
    at, inner, left, x, dt, bc, x_l, bc_l, x_registers, bc_registers, states, own_d, own_n,
    run, move, turn, U: tl.constexpr, NH: tl.constexpr, DH: tl.constexpr,
    EVEN: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, PIECE: tl.constexpr,
    INDEX_64BIT: tl.constexpr,
):  # fmt: skip
    """Positions of U steps in x, their rows of x, dt, Bs and Cs, and the positions of the next
    ones. `left` steps remain; if these are fewer than U, the last is repeated. Cs are `states`
    elements after Bs; where it is None, they are not needed, and likewise dt."""
    places = ()
    xs = ()
    dts = ()
    Bs = ()
    Cs = ()
    for i in tl.static_range(U):
        p = at.to(tl.int64) if INDEX_64BIT else at
        place = p * x_l
        maps = bc + p * bc_l
        places = places + (place,)
        xs = xs + (load_channels(x + place, x_registers, own_d, DH, EVEN, ALIGN),)
        if dt is not None:
            dts = dts + (load_channels(dt + place, x_registers, own_d, DH, EVEN, ALIGN),)
        Bs = Bs + (load_maps(maps, bc_registers, own_n, NH, FULL, PIECE),)
        if states is not None:
            Cs = Cs + (load_maps(maps + states, bc_registers, own_n, NH, FULL, PIECE),)
        at, inner = advance(at, inner, run, move, turn, i + 1 < left)
    return (places, xs, dts, Bs, Cs), at, inner


@triton.jit
def own_inputs(
    bc, dt, b, k, first_d, R, nl, dl, x_d, dt_b, dt_k, bc_b, bc_k, bc_n,
    T: tl.constexpr, C: tl.constexpr, STAGED: tl.constexpr,
):  # fmt: skip
    """The start of a program's sequence in bc, with the R values of dt's projection, and its lanes'
    Bs; then its dt or, if STAGED, its scratch for it."""
    low_rank = bc + (b * bc_b + k * bc_k)
    bc = low_rank + (R + nl) * bc_n
    if STAGED:
        dt += tl.program_id(0).to(tl.int64) * (T * staged_row(C))
    else:
        dt = dt + b * dt_b + k * dt_k + first_d * x_d + dl * x_d
    return low_rank, bc, dt


@triton.jit(do_not_specialize=unspecialised.SCAN)
def forward_kernel(
    x, dt, bc, weight, bias, A, y, states, last, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, parts, split_chunks, chunks, first_direction,
    first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, bc_b, bc_k, bc_l, bc_n, one, R,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr, ALIGN: tl.constexpr, PIECE: tl.constexpr,
    INDEX_64BIT: tl.constexpr, IMAGE: tl.constexpr, STAGED: tl.constexpr, SAVE: tl.constexpr,
    LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """x and y share strides, and steps of dt are laid out like x's; y is added to (IMAGE) or
    stored. Chunks have T steps, processed U at a time. STAGED: dt is the program's scratch,
    computed chunk by chunk.

    Rows of bc contain R values of dt's projection, Bs and Cs. In images channels, and values in bc,
    are adjacent. EVEN: the tile divides D. Accesses are aligned to ALIGN bytes, in bc to PIECE; 0:
    not aligned. INDEX_64BIT: offsets within an image need 64 bits.
    """
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    x_d = inner_stride(x_d, IMAGE, INDEX_64BIT)
    bc_n = inner_stride(bc_n, IMAGE, INDEX_64BIT)
    L = H * W
    FULL: tl.constexpr = N == NH * NL
    nl = lane_states(NH, NL, DL, one)
    nh = register_states(NH)
    first_d = block * DH * DL
    dl = lane_channels(DH, NL, DL, one)
    dh = register_channels(DH)
    sum_d, sum_owner = channel_of_lane(DH, NL)
    sum_d += dl
    d_end = D - first_d
    own_d = dl + dh < d_end
    own_n = nl + nh < N
    tile_mask = own_n & own_d
    lanes = dl * N + nl
    registers = dh * N + nh
    EXACT: tl.constexpr = EVEN and FULL

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    wide_k = k.to(tl.int64)
    at_x = wide_b * x_b + wide_k * x_k + first_d * x_d
    x += at_x + dl * x_d
    y += at_x
    low_rank, bc, dt = own_inputs(
        bc, dt, wide_b, wide_k, first_d, R, nl, dl, x_d, dt_b, dt_k, bc_b, bc_k, bc_n,
        T, DH * DL, STAGED,
    )  # fmt: skip
    if STAGED:
        weight += (k * D + first_d) * R
        bias += k * D + first_d
    dt_rows = None if STAGED else dt
    A += (k * D + first_d) * N + lanes
    A2 = load_decay(A, registers, tile_mask, NH, EXACT, ALIGN, IMAGE)

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    if SPLIT:
        h = fold_splits(
            h, A2, split_state, split_dt, sequence * (splits * parts), s, splits, parts, D, N,
            first_d, lanes, registers, tile_mask, dl, dh, own_d, NH, DH, EVEN, EXACT, ALIGN, False,
        )  # fmt: skip
    first = s * split_chunks
    run, move, turn = walk(k, H, W, IMAGE)
    at, inner = start(first * T, k, H, W, run, IMAGE)
    rows, at, inner = load_steps(
        at, inner, L - first * T, x, dt_rows, bc, x_l, bc_l, dh * x_d, nh * bc_n, N * bc_n,
        own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL, ALIGN, PIECE, INDEX_64BIT,
    )  # fmt: skip
    for chunk in range(first, tl.minimum(first + split_chunks, chunks)):
        if SAVE:
            row = ((sequence * chunks + chunk) * D + first_d) * N
            store_states(states + row + lanes, registers, h, tile_mask, NH, EXACT, ALIGN)
        if STAGED:
            stage_dt(
                low_rank, weight, bias, dt, chunk * T, k, H, W, run, d_end, R, bc_l,
                DH * DL, T, min(staged_row(DH * DL), 32), PIECE,
            )  # fmt: skip
            staged = load_staged(dt, 0, dl, dh, U, DH, DL, T)
        for segment in range((tl.minimum(L - chunk * T, T) + U - 1) // U):
            step = chunk * T + segment * U
            places, xs, dts, Bs, Cs = rows
            if STAGED:
                dts = staged
                staged = load_staged(dt, (segment + 1) * U, dl, dh, U, DH, DL, T)
            # The next rows are prefetched while these are processed.
            rows, at, inner = load_steps(
                at, inner, L - step - U, x, dt_rows, bc, x_l, bc_l, dh * x_d, nh * bc_n, N * bc_n,
                own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL, ALIGN, PIECE, INDEX_64BIT,
            )  # fmt: skip
            values = ()
            for i in tl.static_range(U):
                dt_i = dts[i]
                if not STAGED:
                    # Steps past the end change nothing.
                    dt_i = tl.where(step + i < L, dt_i, 0.0)
                h = tl.exp2(A2 * dt_i) * h + unpack_maps(Bs[i], bc.dtype.element_ty, NH) * (
                    dt_i * xs[i].to(tl.float32)
                )
                maps = unpack_maps(Cs[i], bc.dtype.element_ty, NH)
                values = values + (sum_states(h * maps, DH, NL, DL),)
            # All together: ptxas does not move anything past an atomic addition.
            for i in tl.static_range(U):
                to = tl.max_contiguous(y + places[i] + sum_d * x_d, (1, 2, 4, 8))
                mask = (sum_d < tl.where(step + i < L, d_end, 0)) & sum_owner
                if IMAGE:
                    tl.atomic_add(to, values[i], mask=mask, sem="relaxed")
                else:
                    tl.store(to, values[i], mask=mask)
    if LAST:
        last += (sequence * D + first_d) * N + lanes
        if s == splits - 1:
            store_states(last, registers, h, tile_mask, NH, EXACT, ALIGN)


@triton.jit(do_not_specialize=unspecialised.SCAN)
def split_kernel(
    x, dt, bc, weight, bias, A, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, parts, split_chunks, chunks, first_direction,
    first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, bc_b, bc_k, bc_l, bc_n, one, R,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr, ALIGN: tl.constexpr, PIECE: tl.constexpr,
    INDEX_64BIT: tl.constexpr, IMAGE: tl.constexpr, STAGED: tl.constexpr, BACKWARD: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """What each part of a split adds to a zero state, and its sum of dt. A split's chunks are
    divided into parts as equal as possible.

    In the backward pass the state is the adjoint, x stands for dy and Cs for Bs, and nothing is
    STAGED. The contribution of the last split in its direction is not needed. WHOLE: 2U divides the
    number of steps.
    """
    b, k, part, block = locate(
        tl.program_id(0), directions, blocks, (splits - 1) * parts, first_direction, first_block
    )
    if BACKWARD:
        part += parts
    x_d = inner_stride(x_d, IMAGE, INDEX_64BIT)
    bc_n = inner_stride(bc_n, IMAGE, INDEX_64BIT)
    L = H * W
    FULL: tl.constexpr = N == NH * NL
    nl = lane_states(NH, NL, DL, one)
    nh = register_states(NH)
    first_d = block * DH * DL
    dl = lane_channels(DH, NL, DL, one)
    dh = register_channels(DH)
    d_end = D - first_d
    own_d = dl + dh < d_end
    own_n = nl + nh < N
    tile_mask = own_n & own_d
    lanes = dl * N + nl
    registers = dh * N + nh
    EXACT: tl.constexpr = EVEN and FULL

    wide_b = b.to(tl.int64)
    wide_k = k.to(tl.int64)
    x += wide_b * x_b + wide_k * x_k + first_d * x_d + dl * x_d
    low_rank, bc, dt = own_inputs(
        bc, dt, wide_b, wide_k, first_d, R, nl, dl, x_d, dt_b, dt_k, bc_b, bc_k, bc_n,
        T, DH * DL, STAGED,
    )  # fmt: skip
    if STAGED:
        weight += (k * D + first_d) * R
        bias += k * D + first_d
    dt_rows = None if STAGED else dt
    if BACKWARD:
        bc += N * bc_n
    A += (k * D + first_d) * N + lanes
    A2 = load_decay(A, registers, tile_mask, NH, EXACT, ALIGN, IMAGE)

    h = tl.zeros((NH, DH, NL, DL), tl.float32)
    total = tl.zeros((1, DH, NL, DL), tl.float32)
    last = (part // parts + 1) * split_chunks
    length = tl.cdiv(split_chunks, parts)
    first = tl.minimum(last - split_chunks + part % parts * length, last)
    end = tl.minimum(tl.minimum(first + length, last) * T, L)
    first = tl.minimum(first * T, L)
    way = k
    if BACKWARD:
        # Walking back from the last step equals walking in the opposite direction.
        first, end = L - end, L - first
        if IMAGE:
            way = (k + 2) % 4
    run, move, turn = walk(way, H, W, IMAGE)
    at, inner = start(first, way, H, W, run, IMAGE)
    if BACKWARD and not IMAGE:
        at = L - 1 - at
        move = -move
    rows, at, inner = load_steps(
        at, inner, end - first, x, dt_rows, bc, x_l, bc_l, dh * x_d, nh * bc_n, None,
        own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL, ALIGN, PIECE, INDEX_64BIT,
    )  # fmt: skip
    for chunk in range(first, end, T):
        if STAGED:
            stage_dt(
                low_rank, weight, bias, dt, chunk, k, H, W, run, d_end, R, bc_l, DH * DL, T,
                16,  # of 32 as in the scan, some would spill
                PIECE,
            )  # fmt: skip
            staged = load_staged(dt, 0, dl, dh, U, DH, DL, T)
        # Two segments at a time, so that prefetched values need not move to other registers.
        for pair in range(chunk, tl.minimum(chunk + T, end), 2 * U):
            for second in tl.static_range(2):
                step = pair + second * U
                _, xs, dts, maps, _ = rows
                if STAGED:
                    dts = staged
                    staged = load_staged(dt, step + U - chunk, dl, dh, U, DH, DL, T)
                rows, at, inner = load_steps(
                    at, inner, end - step - U, x, dt_rows, bc, x_l, bc_l, dh * x_d, nh * bc_n, None,
                    own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL, ALIGN, PIECE, INDEX_64BIT,
                )  # fmt: skip
                for i in tl.static_range(U):
                    dt_i = dts[i]
                    x_i = xs[i].to(tl.float32)
                    map_i = unpack_maps(maps[i], bc.dtype.element_ty, NH)
                    if not STAGED and not WHOLE:
                        # Steps past the end add nothing.
                        dt_i = tl.where(step + i < end, dt_i, 0.0)
                        map_i = tl.where(step + i < end, map_i, 0.0)
                    a = tl.exp2(A2 * dt_i)
                    if BACKWARD:
                        h = a * (h + map_i * x_i)
                    else:
                        h = a * h + map_i * (dt_i * x_i)
                    total += dt_i
    row = ((b * K + k) * (splits * parts) + part).to(tl.int64) * D + first_d
    store_states(split_state + row * N + lanes, registers, h, tile_mask, NH, EXACT, ALIGN)
    to = tl.max_contiguous(split_dt + row + dl + dh, (1, 2, 4, 8))
    tl.store(to, total, mask=dl + dh < d_end)
