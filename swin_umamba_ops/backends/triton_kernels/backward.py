"""The scan backwards.

With g the adjoint of the state h after a step, a = exp(dt A) and u = dt x Bs:
    dCs = dy h    dBs = g dt x    d(dt x) = g Bs    q = (a g) h_before    ddt = A q    dA = dt q
and a g goes on to the step before. Of each chunk of T steps the entering state was saved. From it
the states that enter its segments of U steps are made again, and noted in a scratch of the
program's own. The segments are then taken from the last to the first, their states in registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.forward import LOG2E
from swin_umamba_ops.backends.triton_kernels.tile import (
    advance,
    flat_states,
    fold_splits,
    lane_channels,
    lane_states,
    load_row,
    load_tile,
    locate,
    register_channels,
    register_states,
    retreat,
    start,
    store_tile,
    sum_channels,
    sum_states_in_place,
    walk,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus_slope(dt):
    """1 - exp(-dt): the derivative of softplus where softplus is dt."""
    series = dt * (1 - dt / 2 * (1 - dt / 3 * (1 - dt / 4 * (1 - dt / 5 * (1 - dt / 6)))))
    return tl.where(dt < 0.25, series, 1 - tl.exp2(dt * -LOG2E))


@triton.jit(do_not_specialize=unspecialised.SCAN)
def backward_kernel(
    dy, x, dt, bc, A, states, scratch, dlast, dx, dbc, dA, dbias, dDs, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, bc_b, bc_k, bc_l, bc_n, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr,
    IMAGE: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """dy and dx have x's strides, dbc has bc's. dx is added to (IMAGE) or stored, dt replaced by
    its gradient before softplus, dbc added to; dA, dbias and dDs hold one row for each image and
    split."""
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
    flat_n = flat_states(NH, NL)
    tile_mask = (nl + nh < N) & (dl + dh < d_end)
    lanes = dl * N + nl
    registers = dh * N + nh
    EXACT: tl.constexpr = EVEN and FULL

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    at_x = wide_b * x_b + k * x_k + first_d * x_d
    at_dt = wide_b * dt_b + k.to(tl.int64) * dt_k + first_d * x_d
    at_bc = wide_b * bc_b + k * bc_k
    x += at_x
    dy += at_x
    dx += at_x
    dt += at_dt
    bc += at_bc
    dbc += at_bc
    A2 = LOG2E * load_tile(A + (k * D + first_d) * N, lanes, registers, tile_mask, EXACT)

    carry = tl.zeros((NH, DH, NL, DL), tl.float32)
    if LAST:
        from_ = (sequence * D + first_d) * N
        carry = load_tile(dlast + from_, lanes, registers, tile_mask, EXACT)
    if SPLIT:
        carry = fold_splits(
            carry, A2, split_state, split_dt, sequence * splits, s, splits, D, first_d, N,
            lanes, registers, tile_mask, dl + dh, EXACT, True,
        )  # fmt: skip
    A_sum = tl.zeros((NH, DH, NL, DL), tl.float32)
    bias_sum = tl.zeros((1, DH, NL, DL), tl.float32)
    D_sum = tl.zeros((1, DH, NL, DL), tl.float32)
    # All lanes of a channel hold its sums; the one at 0 writes them.
    writer = tl.where(dl + dh < d_end, nl, NL)

    SIZE: tl.constexpr = NH * DH * NL * DL
    own_lanes = nl * DL + dl
    own_registers = nh * (DH * DL) + dh * NL
    scratch += tl.program_id(0).to(tl.int64) * (T // U * SIZE)

    first = s * split_chunks
    end = tl.minimum(first + split_chunks, chunks)
    run, move, turn = walk(k, H, W, IMAGE)
    for back in range(first, end):
        chunk = first + end - 1 - back
        from_ = ((sequence * chunks + chunk) * D + first_d) * N
        h = load_tile(states + from_, lanes, registers, tile_mask, EXACT)
        at, inner = start(chunk * T, k, H, W, run, IMAGE)
        store_tile(scratch, own_lanes, own_registers, h, tile_mask, True)
        segments = (tl.minimum(L - chunk * T, T) + U - 1) // U
        for segment in range(1, segments):
            xs = ()
            dts = ()
            Bs = ()
            for _ in tl.static_range(U):
                p = at.to(tl.int64)
                xs = xs + (load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN),)
                dts = dts + (load_row(dt + p * dt_l, dl, dh, x_d, d_end, EVEN),)
                Bs = Bs + (load_row(bc + p * bc_l, nl, nh, bc_n, N, FULL),)
                at, inner = advance(at, inner, run, move, turn, True)
            for i in tl.static_range(U):
                h = tl.exp2(A2 * dts[i]) * h + Bs[i] * (dts[i] * xs[i])
            note = scratch + segment * SIZE
            store_tile(note, own_lanes, own_registers, h, tile_mask, True)
        tl.debug_barrier()  # should Triton read the scratch in other lanes than it wrote it

        for segment_back in range(segments):
            segment = segments - 1 - segment_back
            note = scratch + segment * SIZE
            h = load_tile(note, own_lanes, own_registers, tile_mask, True)
            step = chunk * T + segment * U
            first_at = at
            first_inner = inner
            positions = ()
            xs = ()
            dus = ()
            dts = ()
            dys = ()
            Bs = ()
            Cs = ()
            for i in tl.static_range(U):
                p = at.to(tl.int64)
                positions = positions + (p,)
                ok = step + i < L
                dt_i = load_row(dt + p * dt_l, dl, dh, x_d, d_end, EVEN)
                dt_i = tl.where(ok, dt_i, 0.0)
                dts = dts + (dt_i,)
                x_i = load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN)
                xs = xs + (x_i,)
                dus = dus + (dt_i * x_i,)
                dy_i = load_row(dy + p * x_l, dl, dh, x_d, d_end, EVEN)
                dys = dys + (tl.where(ok, dy_i, 0.0),)
                Bs = Bs + (load_row(bc + p * bc_l, nl, nh, bc_n, N, FULL),)
                Cs = Cs + (load_row(bc + p * bc_l + N * bc_n, nl, nh, bc_n, N, FULL),)
                at, inner = advance(at, inner, run, move, turn, step + i + 1 < L)
            hs = (h,)
            decays = ()
            for i in tl.static_range(U):
                a = tl.exp2(A2 * dts[i])
                h = a * h + Bs[i] * dus[i]
                decays = decays + (a,)
                hs = hs + (h,)
            for i in tl.static_range(U - 1, -1, -1):
                p = positions[i]
                ok = step + i < L
                g = carry + Cs[i] * dys[i]
                carry = decays[i] * g
                q = carry * hs[i]
                A_sum += dts[i] * q
                mask = flat_n < tl.where(ok, N, 0)
                to = dbc + p * bc_l + flat_n * bc_n
                dBs = sum_channels(g * dus[i])
                dCs = sum_channels(hs[i + 1] * dys[i])
                tl.atomic_add(to, dBs, mask=mask, sem="relaxed")
                tl.atomic_add(to + N * bc_n, dCs, mask=mask, sem="relaxed")
                by_decay = sum_states_in_place(A2 * q)
                by_input = sum_states_in_place(g * Bs[i])
                slope = LN2 * by_decay + xs[i] * by_input
                if SOFTPLUS:
                    slope *= softplus_slope(dts[i])
                dx_i = dts[i] * by_input
                bias_sum += slope
                D_sum += dys[i] * xs[i]
                mask = writer < tl.where(ok, 1, 0)
                to_dx = tl.max_contiguous(dx + p * x_l + dl * x_d + dh * x_d, (1, 2, 4, 8))
                to_dt = tl.max_contiguous(dt + p * dt_l + dl * x_d + dh * x_d, (1, 2, 4, 8))
                if IMAGE:
                    tl.atomic_add(to_dx, dx_i, mask=mask, sem="relaxed")
                else:
                    tl.store(to_dx, dx_i, mask=mask)
                tl.store(to_dt, slope, mask=mask)
            at = first_at
            inner = first_inner
            for _ in tl.static_range(U):
                at, inner = retreat(at, inner, run, move, turn)
        tl.debug_barrier()

    row = ((b * splits + s) * K + k).to(tl.int64) * D + first_d
    store_tile(dA + row * N, lanes, registers, A_sum, tile_mask, EXACT)
    tl.store(dbias + row + dl + dh, bias_sum, mask=writer < 1)
    tl.store(dDs + row + dl + dh, D_sum, mask=writer < 1)
