"""The backward scan.

With g the adjoint of the state h after a step, a = exp(dt A) and u = dt x Bs:
    dCs = dy h    dBs = g dt x    d(dt x) = g Bs    q = (a g) h_before    ddt = A q    dA = dt q
and a g goes on to the step before. Of each chunk of T steps the entering state was saved. From it
the states that enter its segments of U steps are recomputed, and saved as checkpoints in a scratch
of its own. The segments are then taken from the last to the first, their states in
registers; each one's rows are prefetched while the one behind it is worked on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.forward import load_steps
from swin_umamba_ops.backends.triton_kernels.tile import (
    LOG2E,
    channel_of_lane,
    channels_of_lane,
    fold_splits,
    inner_stride,
    lane_channels,
    lane_states,
    load_channels,
    load_checkpoint,
    load_decay,
    load_states,
    locate,
    register_channels,
    register_states,
    retreat,
    start,
    state_of_lane,
    store_checkpoint,
    store_states,
    sum_channels,
    sum_states,
    walk,
)

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus_grad(dt):
    """1 - exp(-dt): the derivative of softplus where softplus is dt."""
    series = dt * (1 - dt / 2 * (1 - dt / 3 * (1 - dt / 4 * (1 - dt / 5 * (1 - dt / 6)))))
    return tl.where(dt < 0.25, series, 1 - tl.exp2(dt * -LOG2E))


@triton.jit
def load_steps_back(
    at, inner, step, L, dy, x, dt, bc, x_l, bc_l, x_registers, bc_registers, states, own_d, own_n,
    run, move, turn, U: tl.constexpr, NH: tl.constexpr, DH: tl.constexpr,
    EVEN: tl.constexpr, FULL: tl.constexpr, ALIGN: tl.constexpr, INDEX_64BIT: tl.constexpr,
):  # fmt: skip
    """Positions of the U steps from `step` on in x and bc, their rows of dy, x, dt, Bs and Cs, and
    the position of the steps before them. Steps beyond the first or last are clamped to it. Cs are
    `states` elements after Bs."""
    places = ()
    maps = ()
    dys = ()
    xs = ()
    dts = ()
    Bs = ()
    Cs = ()
    for i in tl.static_range(U - 1, -1, -1):
        p = at.to(tl.int64) if INDEX_64BIT else at
        place = p * x_l
        map = p * bc_l
        places = (place,) + places
        maps = (map,) + maps
        dys = (load_channels(dy + place, x_registers, own_d, DH, EVEN, ALIGN),) + dys
        xs = (load_channels(x + place, x_registers, own_d, DH, EVEN, ALIGN),) + xs
        dts = (load_channels(dt + place, x_registers, own_d, DH, EVEN, ALIGN),) + dts
        Bs = (load_states(bc + map, bc_registers, own_n, NH, FULL, ALIGN),) + Bs
        Cs = (load_states(bc + map + states, bc_registers, own_n, NH, FULL, ALIGN),) + Cs
        at, inner = retreat(at, inner, run, move, turn, (step + i > 0) & (step + i < L))
    return (places, maps, dys, xs, dts, Bs, Cs), at, inner


@triton.jit(do_not_specialize=unspecialised.SCAN)
def backward_kernel(
    dy, x, dt, bc, A, states, scratch, dlast, dx, ddt, dbc, sums, split_state, split_dt,
    D, H, W, K, directions, blocks, splits, parts, split_chunks, chunks, first_direction,
    first_block,
    x_b, x_k, x_l, x_d, dt_b, dt_k, bc_b, bc_k, bc_l, bc_n, one,
    N: tl.constexpr, NH: tl.constexpr, NL: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr,
    T: tl.constexpr, U: tl.constexpr, EVEN: tl.constexpr, ALIGN: tl.constexpr, PIECE: tl.constexpr,
    INDEX_64BIT: tl.constexpr, IMAGE: tl.constexpr, SOFTPLUS: tl.constexpr, LAST: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """dy and dx have x's strides, ddt has dt's, dbc bc's. dx is added to (IMAGE) or stored; ddt,
    before softplus, is stored; dbc is added to. sums have a row for each image and split, with the
    contributions to A, the bias and Ds: (K * D, N), (K * D,) and (K * D,); None if unwanted.
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
    at_bc = wide_b * bc_b + wide_k * bc_k
    x += at_x + dl * x_d
    dy += at_x + dl * x_d
    dx += at_x
    at_dt = wide_b * dt_b + wide_k * dt_k + first_d * x_d
    dt += at_dt + dl * x_d
    ddt += at_dt
    bc += at_bc + nl * bc_n
    dbc += at_bc
    A += (k * D + first_d) * N + lanes
    A2 = load_decay(A, registers, tile_mask, NH, EXACT, ALIGN, IMAGE)

    carry = tl.zeros((NH, DH, NL, DL), tl.float32)
    if LAST:
        from_ = (sequence * D + first_d) * N
        carry = load_states(dlast + from_ + lanes, registers, tile_mask, NH, EXACT, ALIGN)
    if SPLIT:
        carry = fold_splits(
            carry, A2, split_state, split_dt, sequence * (splits * parts), s, splits, parts, D, N,
            first_d, lanes, registers, tile_mask, dl, dh, own_d, NH, DH, EVEN, EXACT, ALIGN, True,
        )  # fmt: skip
    A_sum = tl.zeros((NH, DH, NL, DL), tl.float32)
    bias_sum = tl.zeros((1, max(DH // NL, 1), NL, DL), tl.float32)
    D_sum = tl.zeros((1, max(DH // NL, 1), NL, DL), tl.float32)
    sum_d, d_owner = channel_of_lane(DH, NL)
    sum_n, n_owner = state_of_lane(NH, DL)
    sum_d += dl
    sum_n += nl

    # One of a lane's channels after another, and for each all lanes' states side by side: storing
    # whole lines takes less than half as long.
    SIZE: tl.constexpr = NH * DH * NL * DL
    own_registers = dh * (NH * NL * DL) + nh
    own_lane = nl * DL + lane_channels(1, NL, DL, one) * NH
    scratch += tl.program_id(0).to(tl.int64) * (T // U * SIZE) + own_lane

    first = s * split_chunks
    end = tl.minimum(first + split_chunks, chunks)
    run, move, turn = walk(k, H, W, IMAGE)
    segments = (tl.minimum(L - (end - 1) * T, T) + U - 1) // U
    step = (end - 1) * T + (segments - 1) * U
    back_at, back_inner = start(tl.minimum(step + U, L) - 1, k, H, W, run, IMAGE)
    rows, back_at, back_inner = load_steps_back(
        back_at, back_inner, step, L, dy, x, dt, bc, x_l, bc_l, dh * x_d, nh * bc_n, N * bc_n,
        own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL, ALIGN, INDEX_64BIT,
    )  # fmt: skip
    for back in range(first, end):
        chunk = first + end - 1 - back
        from_ = ((sequence * chunks + chunk) * D + first_d) * N
        h = load_states(states + from_ + lanes, registers, tile_mask, NH, EXACT, ALIGN)
        at, inner = start(chunk * T, k, H, W, run, IMAGE)
        segments = (tl.minimum(L - chunk * T, T) + U - 1) // U
        prefetched, at, inner = load_steps(
            at, inner, L - chunk * T, x, dt, bc, x_l, bc_l, dh * x_d, nh * bc_n, None,
            own_d, own_n, run, move, turn, 2 * U, NH, DH, EVEN, FULL, ALIGN, PIECE, INDEX_64BIT,
        )  # fmt: skip
        # Two segments at a time, for rows with long load latencies.
        for segment in range(0, segments, 2):
            _, xs, dts, Bs, _ = prefetched
            prefetched, at, inner = load_steps(
                at, inner, L - chunk * T - (segment + 2) * U, x, dt, bc, x_l, bc_l,
                dh * x_d, nh * bc_n, None, own_d, own_n, run, move, turn, 2 * U, NH, DH, EVEN, FULL,
                ALIGN, PIECE, INDEX_64BIT,
            )  # fmt: skip
            saved = scratch + segment * SIZE
            for i in tl.static_range(2 * U):
                if i % U == 0:
                    store_checkpoint(saved + i // U * SIZE, own_registers, h, NH)
                h = tl.exp2(A2 * dts[i]) * h + Bs[i] * (dts[i] * xs[i].to(tl.float32))
        # in case Triton reads the scratch with another lane layout than it wrote it
        tl.debug_barrier()

        saved = scratch + (segments - 1) * SIZE
        entering = load_checkpoint(saved, own_registers, NH)
        for segment_back in range(segments):
            segment = segments - 1 - segment_back
            h = entering
            saved = scratch + tl.maximum(segment - 1, 0) * SIZE
            entering = load_checkpoint(saved, own_registers, NH)
            step = chunk * T + segment * U
            places, maps, dys, xs, dts, Bs, Cs = rows
            rows, back_at, back_inner = load_steps_back(
                back_at, back_inner, step - U, L, dy, x, dt, bc, x_l, bc_l,
                dh * x_d, nh * bc_n, N * bc_n, own_d, own_n, run, move, turn, U, NH, DH, EVEN, FULL,
                ALIGN, INDEX_64BIT,
            )  # fmt: skip
            hs = (h,)
            decays = ()
            for i in tl.static_range(U):
                dt_i = tl.where(step + i < L, dts[i], 0.0)
                a = tl.exp2(A2 * dt_i)
                h = a * h + Bs[i] * (dt_i * xs[i].to(tl.float32))
                decays = decays + (a,)
                hs = hs + (h,)
            results = ()
            for i in tl.static_range(U - 1, -1, -1):
                # Steps past the end have zero dt and dy, and write nothing.
                ok = step + i < L
                dt_i = tl.where(ok, dts[i], 0.0)
                x_i = xs[i].to(tl.float32)
                dy_i = tl.where(ok, dys[i].to(tl.float32), 0.0)
                g = carry + Cs[i] * dy_i
                carry = decays[i] * g
                q = carry * hs[i]
                A_sum += dt_i * q
                dBs = sum_channels(g * (dt_i * x_i), NH, NL, DL)
                dCs = sum_channels(hs[i + 1] * dy_i, NH, NL, DL)
                by_decay = sum_states(A2 * q, DH, NL, DL)
                by_input = sum_states(g * Bs[i], DH, NL, DL)
                dt_i = channels_of_lane(dt_i, DH, NL, DL)
                x_i = channels_of_lane(x_i, DH, NL, DL)
                D_sum += x_i * channels_of_lane(dy_i, DH, NL, DL)
                ddt_i = LN2 * by_decay + x_i * by_input
                if SOFTPLUS:
                    ddt_i *= softplus_grad(dt_i)
                bias_sum += ddt_i
                results = ((dBs, dCs, dt_i * by_input, ddt_i),) + results
            # All together: ptxas does not move anything past an atomic addition.
            for i in tl.static_range(U - 1, -1, -1):
                ok = step + i < L
                dBs, dCs, dx_i, ddt_i = results[i]
                to = tl.max_contiguous(dbc + maps[i] + sum_n * bc_n, (1, 2, 4, 8))
                mask = (sum_n < tl.where(ok, N, 0)) & n_owner
                tl.atomic_add(to, dBs, mask=mask, sem="relaxed")
                tl.atomic_add(to + N * bc_n, dCs, mask=mask, sem="relaxed")
                to_dx = tl.max_contiguous(dx + places[i] + sum_d * x_d, (1, 2, 4, 8))
                to_dt = tl.max_contiguous(ddt + places[i] + sum_d * x_d, (1, 2, 4, 8))
                mask = (sum_d < tl.where(ok, d_end, 0)) & d_owner
                if IMAGE:
                    tl.atomic_add(to_dx, dx_i, mask=mask, sem="relaxed")
                else:
                    tl.store(to_dx, dx_i, mask=mask)
                tl.store(to_dt, ddt_i, mask=mask)
        tl.debug_barrier()

    if sums is not None:
        channels = K * D
        row = k * D + first_d
        sums += (b * splits + s).to(tl.int64) * channels * (N + 2)
        store_states(sums + row * N + lanes, registers, A_sum, tile_mask, NH, EXACT, ALIGN)
        to = sums + channels * N + row + sum_d
        tl.store(to, bias_sum, mask=(sum_d < d_end) & d_owner)
        tl.store(to + channels, D_sum, mask=(sum_d < d_end) & d_owner)
