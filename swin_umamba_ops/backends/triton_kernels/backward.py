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
    locate,
    start,
    sum_channels,
    sum_states,
    tile_channels,
    tile_states,
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
    x_b, x_k, x_l, x_d, dt_b, dt_k, dt_l, dt_d, bc_b, bc_k, bc_l, bc_n, state_d, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr,
    IMAGE: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """dy and dx have x's strides, ddt has dt's, dbc has bc's. dx is added to (IMAGE) or stored,
    ddt stored, dbc added to; dA, dbias and dDs hold one row for each image and split."""
    b, k, s, block = locate(
        tl.program_id(0), directions, blocks, splits, first_direction, first_block
    )
    L = H * W
    n = tile_states(NH, NL, DL, one)
    d = block * DH * DL + tile_channels(DH, NL, DL, one)
    tile_mask = (n < N) & (d < D)
    tile = tl.max_contiguous(d * state_d + n * one, (1, 2, 4, 8))
    d_mask = d < D
    flat_d = block * DH * DL + flat_channels(DH, DL)
    flat_mask = flat_d < D
    flat_n = flat_states(NH, NL)

    sequence = (b * K + k).to(tl.int64)
    wide_b = b.to(tl.int64)
    x_at = wide_b * x_b + k * x_k
    dt_at = wide_b * dt_b + k.to(tl.int64) * dt_k
    bc_at = wide_b * bc_b + k * bc_k
    x_ = x + x_at + tl.max_contiguous(d * x_d, (1, 2, 4, 8))
    dy_ = dy + x_at + tl.max_contiguous(d * x_d, (1, 2, 4, 8))
    dt_ = dt + dt_at + tl.max_contiguous(d * dt_d, (1, 2, 4, 8))
    Bs_ = bc + bc_at + tl.max_contiguous(n * bc_n, (1, 2, 4, 8))
    Cs_ = Bs_ + N * bc_n
    flat_x = x + x_at + flat_d * x_d
    flat_dy = dy + x_at + flat_d * x_d
    flat_dt = dt + dt_at + flat_d * dt_d
    dx_ = dx + x_at + flat_d * x_d
    ddt_ = ddt + dt_at + flat_d * dt_d
    dBs_ = dbc + bc_at + flat_n * bc_n
    dCs_ = dBs_ + N * bc_n
    A2 = tl.load(A + k * D * N + tile, mask=tile_mask, other=0.0) * LOG2E

    carry = tl.zeros((NH, DH, NL, DL), tl.float32)
    if LAST:
        carry = tl.load(dlast + sequence * D * N + tile, mask=tile_mask, other=0.0)
    if SPLIT:
        carry = fold_splits(
            carry, A2, split_state, split_dt, sequence * splits, s, splits, D, N, tile, tile_mask,
            d, d_mask, True,
        )  # fmt: skip
    A_sum = tl.zeros((NH, DH, NL, DL), tl.float32)
    bias_sum = tl.zeros((DH, DL), tl.float32)
    D_sum = tl.zeros((DH, DL), tl.float32)

    first = s * split_chunks
    end = tl.minimum(first + split_chunks, chunks)
    run, move, turn = walk(k, H, W, IMAGE)
    for back in range(first, end):
        chunk = first + end - 1 - back
        entering = tl.load(
            states + (sequence * chunks + chunk) * D * N + tile, mask=tile_mask, other=0.0
        )
        for segment_back in range(T // U):
            segment = T // U - 1 - segment_back
            at, inner = start(chunk * T, k, H, W, run, IMAGE)
            h = entering
            for again in range(segment):
                for i in tl.static_range(U):
                    p = at.to(tl.int64)
                    room = tl.where(chunk * T + again * U + i < L, D, 0)
                    n_room = tl.where(chunk * T + again * U + i < L, N, 0)
                    dt_i = tl.load(dt_ + p * dt_l, mask=d < room, other=0.0)
                    x_i = tl.load(x_ + p * x_l, mask=d < room, other=0.0).to(tl.float32)
                    B_i = tl.load(Bs_ + p * bc_l, mask=n < n_room, other=0.0)
                    h = tl.exp2(A2 * dt_i) * h + B_i * (dt_i * x_i)
                    at, inner = advance(at, inner, run, move, turn)

            step = chunk * T + segment * U
            positions = ()
            dus = ()
            dts = ()
            dys = ()
            Bs = ()
            Cs = ()
            for i in tl.static_range(U):
                p = at.to(tl.int64)
                room = tl.where(step + i < L, D, 0)
                n_room = tl.where(step + i < L, N, 0)
                positions = positions + (p,)
                dt_i = tl.load(dt_ + p * dt_l, mask=d < room, other=0.0)
                x_i = tl.load(x_ + p * x_l, mask=d < room, other=0.0).to(tl.float32)
                dts = dts + (dt_i,)
                dus = dus + (dt_i * x_i,)
                dy_i = tl.load(dy_ + p * x_l, mask=d < room, other=0.0).to(tl.float32)
                dys = dys + (dy_i,)
                Bs = Bs + (tl.load(Bs_ + p * bc_l, mask=n < n_room, other=0.0),)
                Cs = Cs + (tl.load(Cs_ + p * bc_l, mask=n < n_room, other=0.0),)
                at, inner = advance(at, inner, run, move, turn)
            hs = (h,)
            decays = ()
            for i in tl.static_range(U):
                a = tl.exp2(A2 * dts[i])
                h = a * h + Bs[i] * dus[i]
                decays = decays + (a,)
                hs = hs + (h,)
            for i in tl.static_range(U - 1, -1, -1):
                p = positions[i]
                room = tl.where(step + i < L, D, 0)
                n_room = tl.where(step + i < L, N, 0)
                g = carry + Cs[i] * dys[i]
                carry = decays[i] * g
                q = carry * hs[i]
                A_sum += dts[i] * q
                mask = flat_n < n_room
                tl.atomic_add(
                    dBs_ + p * bc_l, sum_channels(g * dus[i]), mask=mask, sem="relaxed"
                )
                tl.atomic_add(
                    dCs_ + p * bc_l, sum_channels(hs[i + 1] * dys[i]), mask=mask, sem="relaxed"
                )
                by_decay = sum_states(A2 * q)
                by_input = sum_states(g * Bs[i])
                mask = flat_d < room
                x_i = tl.load(flat_x + p * x_l, mask=mask, other=0.0).to(tl.float32)
                dt_i = tl.load(flat_dt + p * dt_l, mask=mask, other=0.0)
                dy_i = tl.load(flat_dy + p * x_l, mask=mask, other=0.0).to(tl.float32)
                if IMAGE:
                    tl.atomic_add(dx_ + p * x_l, dt_i * by_input, mask=mask, sem="relaxed")
                else:
                    tl.store(dx_ + p * x_l, dt_i * by_input, mask=mask)
                slope = LN2 * by_decay + x_i * by_input
                if SOFTPLUS:
                    slope *= softplus_slope(dt_i)
                tl.store(ddt_ + p * dt_l, slope, mask=mask)
                bias_sum += slope
                D_sum += dy_i * x_i

    row = ((b * splits + s) * K + k).to(tl.int64) * D
    tl.store(dA + row * N + tile, A_sum, mask=tile_mask)
    tl.store(dbias + row + flat_d, bias_sum, mask=flat_mask)
    tl.store(dDs + row + flat_d, D_sum, mask=flat_mask)
