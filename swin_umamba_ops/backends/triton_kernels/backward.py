"""The scan backwards.

With g the adjoint of the state h after a step, a = exp(dt A) and u = dt x Bs:
    dCs = dy h    dBs = g dt x    d(dt x) = g Bs    q = (a g) h_before    ddt = A q    dA = dt q
and a g goes on to the step before. Of each chunk of T steps the entering state was saved. The
chunk is taken in segments of U steps from the last to the first: the states up to a segment are
made again from the saved one, those within it stay in registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels.forward import LOG2E, UNSPECIALISED
from swin_umamba_ops.backends.triton_kernels.tile import (
    advance,
    flat_channels,
    flat_states,
    fold_splits,
    lane_channels,
    lane_states,
    load_row,
    locate,
    register_channels,
    register_states,
    start,
    sum_channels,
    sum_states,
    walk,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus_slope(dt):
    """1 - exp(-dt): the derivative of softplus where softplus is dt."""
    series = dt * (1 - dt / 2 * (1 - dt / 3 * (1 - dt / 4 * (1 - dt / 5 * (1 - dt / 6)))))
    return tl.where(dt < 0.25, series, 1 - tl.exp2(dt * -LOG2E))


@triton.jit(do_not_specialize=UNSPECIALISED)
def backward_kernel(
    dy, x, dt, bc, A, states, dlast, dx, ddt, dbc, dA, dbias, dDs, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, split_chunks, chunks, first_direction, first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, bc_b, bc_k, bc_l, bc_n, state_d, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr,
    IMAGE: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """dy and dx have x's strides, ddt has dt's, dbc has bc's. dx is added to (IMAGE) or stored,
    ddt stored, dbc added to; dA, dbias and dDs hold one row for each image and split."""
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
    flat_n = flat_states(NH, NL)
    tile_mask = (nl + nh < N) & (dl + dh < d_end)
    tile = tl.max_contiguous((dl + dh) * state_d + nl + nh, (1, 2, 4, 8))

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    at_x = wide_b * x_b + k * x_k + first_d * x_d
    at_dt = wide_b * dt_b + k.to(tl.int64) * dt_k + first_d * x_d
    at_bc = wide_b * bc_b + k * bc_k
    x += at_x
    dy += at_x
    dx += at_x
    dt += at_dt
    ddt += at_dt
    bc += at_bc
    dbc += at_bc
    A2 = tl.load(A + (k * D + first_d) * N + tile, mask=tile_mask, other=0.0) * LOG2E

    carry = tl.zeros((NH, DH, NL, DL), tl.float32)
    if LAST:
        from_ = (sequence * D + first_d) * N
        carry = tl.load(dlast + from_ + tile, mask=tile_mask, other=0.0)
    if SPLIT:
        carry = fold_splits(
            carry, A2, split_state, split_dt, sequence * splits, s, splits, D, first_d, N, tile,
            tile_mask, dl + dh, True,
        )  # fmt: skip
    A_sum = tl.zeros((NH, DH, NL, DL), tl.float32)
    bias_sum = tl.zeros((DH, DL), tl.float32)
    D_sum = tl.zeros((DH, DL), tl.float32)

    first = s * split_chunks
    end = tl.minimum(first + split_chunks, chunks)
    run, move, turn = walk(k, H, W, IMAGE)
    for back in range(first, end):
        chunk = first + end - 1 - back
        from_ = ((sequence * chunks + chunk) * D + first_d) * N
        entering = tl.load(states + from_ + tile, mask=tile_mask, other=0.0)
        begin, begin_inner = start(chunk * T, k, H, W, run, IMAGE)
        for segment_back in range(T // U):
            segment = T // U - 1 - segment_back
            at = begin
            inner = begin_inner
            h = entering
            for again in range(segment):
                for i in tl.static_range(U):
                    step = chunk * T + again * U + i
                    p = at.to(tl.int64)
                    dt_i = load_row(dt + p * dt_l, dl, dh, x_d, d_end, EVEN)
                    dt_i = tl.where(step < L, dt_i, 0.0)
                    x_i = load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN)
                    B_i = load_row(bc + p * bc_l, nl, nh, bc_n, N, FULL)
                    h = tl.exp2(A2 * dt_i) * h + B_i * (dt_i * x_i)
                    at, inner = advance(at, inner, run, move, turn, step + 1 < L)

            step = chunk * T + segment * U
            positions = ()
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
                dus = dus + (dt_i * load_row(x + p * x_l, dl, dh, x_d, d_end, EVEN),)
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
                by_decay = sum_states(A2 * q)
                by_input = sum_states(g * Bs[i])
                mask = flat_d < tl.where(ok, d_end, 0)
                at_d = p * x_l + flat_d * x_d
                x_i = tl.load(x + at_d, mask=mask, other=0.0).to(tl.float32)
                dy_i = tl.load(dy + at_d, mask=mask, other=0.0).to(tl.float32)
                dt_i = tl.load(dt + p * dt_l + flat_d * x_d, mask=mask, other=0.0)
                if IMAGE:
                    tl.atomic_add(dx + at_d, dt_i * by_input, mask=mask, sem="relaxed")
                else:
                    tl.store(dx + at_d, dt_i * by_input, mask=mask)
                slope = LN2 * by_decay + x_i * by_input
                if SOFTPLUS:
                    slope *= softplus_slope(dt_i)
                tl.store(ddt + p * dt_l + flat_d * x_d, slope, mask=mask)
                bias_sum += slope
                D_sum += dy_i * x_i

    row = ((b * splits + s) * K + k).to(tl.int64) * D + first_d
    tl.store(dA + row * N + tile, A_sum, mask=tile_mask)
    tl.store(dbias + row + flat_d, bias_sum, mask=flat_d < d_end)
    tl.store(dDs + row + flat_d, D_sum, mask=flat_d < d_end)
