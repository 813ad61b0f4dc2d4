"""dt = softplus(weight @ dt_r + bias) in float32: for whole images, with gradients, or for a
program's own chunk."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.tile import LOG2E, load_channels, start

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def softplus(raw):
    """log(1 + exp(raw)) = max(raw, 0) + log(1 + e), e = exp(-|raw|). log(1 + e) / e is a minimax
    polynomial (relative error 3e-8; csrc/cuda/math.cuh), since 1 + e would lose e's digits.
    """
    e = tl.exp2(tl.abs(raw) * -LOG2E)
    s = e * 5.23269064e-3 - 2.95052287e-2
    s = e * s + 7.82259239e-2
    s = e * s - 1.36632460e-1
    s = e * s + 1.91060074e-1
    s = e * s - 2.48429826e-1
    s = e * s + 3.33190969e-1
    s = e * s - 4.99994931e-1
    s = e * s + 9.99999970e-1
    return e * s + tl.maximum(raw, 0.0)


@triton.constexpr_function
def staged_row(C):
    """Number of values in a row of `stage_dt`: a matrix product has at least 16 columns."""
    return max(C, 16)


@triton.jit
def load_staged(
    staged, row, dl, dh, U: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr, T: tl.constexpr
):
    """U rows of `stage_dt` from `row` on, clamped to the last ones, each as a tile's channels."""
    rows = ()
    at = staged + tl.minimum(row, T - U) * staged_row(DH * DL) + dl
    for i in tl.static_range(U):
        rows = rows + (load_channels(at + i * staged_row(DH * DL), dh, None, DH, True, 16),)
    return rows


@triton.jit
def adjacent(rows, columns, ADJACENT: tl.constexpr):
    """Addresses of the values in columns [1, C] of rows at [R, 1]; groups of adjacent ones are
    aligned, and must be masked alike."""
    BYTES: tl.constexpr = ADJACENT * rows.dtype.element_ty.primitive_bitwidth // 8
    at = rows + columns  # set here, since Triton drops hints on arguments
    return tl.max_contiguous(tl.multiple_of(at, (1, BYTES)), (1, ADJACENT))


@triton.jit
def load_adjacent(rows, columns, mask, ADJACENT: tl.constexpr):
    """The values there, where `mask`, else 0."""
    return tl.load(adjacent(rows, columns, ADJACENT), mask=mask, other=0.0)


@triton.jit
def store_adjacent(rows, columns, values, mask, ADJACENT: tl.constexpr):
    """Store values; the inverse of the load."""
    tl.store(adjacent(rows, columns, ADJACENT), values, mask=mask)


@triton.jit
def multiply(a, b, total):
    """total + a b, with products in float32."""
    if INTERPRETED:  # there are no products of bfloat16 there
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def stage_dt(
    proj, weight, bias, to, first, k, H, W, run, channels, R, row_stride,
    C: tl.constexpr, T: tl.constexpr, COLUMNS: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """dt of C channels, of which `channels` exist, for the T steps of an image from `first` on,
    into rows at `to`, COLUMNS at a time; 0 in steps past the end.

    proj, 16-bit, points to the image's first position and the direction's first of R values; weight
    (channels, R) and bias (channels,) to the first channel. Their rows are aligned to PIECE bytes;
    0: to single values.
    """
    ADJACENT: tl.constexpr = max(PIECE // 2, 1)
    # Each loop iteration waits for memory.
    RANK: tl.constexpr = 32 if PIECE == 16 else 16
    R = R // ADJACENT * ADJACENT  # the same R, known to be a multiple
    tl.debug_barrier()  # other lanes may still be reading the previous rows
    row = tl.arange(0, T)
    step = first + row
    at, _ = start(tl.minimum(step, H * W - 1), k, H, W, run, True)
    rows = proj + at.to(tl.int64)[:, None] * row_stride
    for column in range(0, C, COLUMNS):
        d = column + tl.arange(0, COLUMNS)
        total = tl.zeros((T, COLUMNS), tl.float32)
        for rank in tl.range(0, R, RANK, num_stages=1):
            r = rank + tl.arange(0, RANK)
            values = load_adjacent(rows, r[None, :], r[None, :] < R, ADJACENT)
            w = load_adjacent(
                weight + d[:, None] * R, r[None, :],
                (d[:, None] < channels) & (r[None, :] < R), ADJACENT,
            )  # fmt: skip
            total = multiply(values, tl.trans(w), total)
        total += tl.load(bias + d, mask=d < channels, other=0.0)[None, :]
        dt = tl.where(step[:, None] < H * W, softplus(total), 0.0)
        tl.store(to + row[:, None] * staged_row(C) + d[None, :], dt)
    tl.debug_barrier()


@triton.jit(do_not_specialize=unspecialised.PROJECT)
def image_kernel(
    proj, weight, bias, dt, maps, dmaps, rows, D, R,
    N: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr, ADJACENT: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """proj: rows of 4 directions, each R + 2N values; weight (4, D, R); bias (4, D);
    dt (4, rows, D); maps (rows, 4, 2N): proj's last 2N values in float32; dmaps, like maps, of a
    backward pass: zeros. Rows of R and of 2N values are aligned to so many ADJACENT ones, D is a
    multiple of CHANNELS."""
    R = R // ADJACENT * ADJACENT  # the same, known to be multiples
    D = D // CHANNELS * CHANNELS
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    k = tl.program_id(1)
    l = pid // blocks * BLOCK_L + tl.arange(0, BLOCK_L).to(tl.int64)
    d = pid % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    row = (l * 4 + k)[:, None]
    own_l = l[:, None] < rows
    total = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for first in tl.range(0, R, BLOCK_R, num_stages=1):
        r = (first + tl.arange(0, BLOCK_R))[None, :]
        values = load_adjacent(proj + row * (R + 2 * N), r, own_l & (r < R), ADJACENT)
        w = load_adjacent(
            weight + (k * D + d[:, None]) * R, r, (d[:, None] < D) & (r < R), ADJACENT
        )
        total = multiply(values, tl.trans(w), total)
    total += tl.load(bias + k * D + d, mask=d < D, other=0.0)[None, :]
    store_adjacent(
        dt + (k.to(tl.int64) * rows + l[:, None]) * D, d[None, :], softplus(total),
        own_l & (d[None, :] < D), CHANNELS,
    )  # fmt: skip
    if pid % blocks == 0:
        for first in range(0, 2 * N, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)[None, :]
            mask = own_l & (n < 2 * N)
            values = load_adjacent(proj + row * (R + 2 * N) + R, n, mask, ADJACENT)
            store_adjacent(maps + row * (2 * N), n, values.to(tl.float32), mask, ADJACENT)
            if dmaps is not None:
                tl.store(dmaps + row * (2 * N) + n, tl.zeros_like(values).to(tl.float32), mask=mask)


@triton.jit(do_not_specialize=unspecialised.PROJECT)
def image_gradient_kernel(
    ddt, dmaps, proj, weight, dproj, dweight, rows, D, R,
    N: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr, ADJACENT: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradients of proj and weight, as in image_kernel, from ddt (4, rows, D), of dt before
    softplus, and dmaps: dproj like proj, dweight (pieces of BLOCK_L rows, 4, D, R) in float32, or
    None. ddt is read once for both."""
    R = R // ADJACENT * ADJACENT
    D = D // CHANNELS * CHANNELS
    piece = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    l = piece * BLOCK_L + tl.arange(0, BLOCK_L)
    row = (l * 4 + k)[:, None]
    own_l = l[:, None] < rows
    ddts = ddt + (k.to(tl.int64) * rows + l[:, None]) * D
    for first in range(0, R, BLOCK_R):
        r = (first + tl.arange(0, BLOCK_R))[None, :]
        values = load_adjacent(proj + row * (R + 2 * N), r, own_l & (r < R), ADJACENT)
        total = tl.zeros((BLOCK_L, BLOCK_R), tl.float32)
        for first_d in range(0, D, BLOCK_D):
            d = first_d + tl.arange(0, BLOCK_D)
            own_ddt = load_adjacent(ddts, d[None, :], own_l & (d[None, :] < D), CHANNELS)
            at = (k * D + d[:, None]) * R
            mask = (d[:, None] < D) & (r < R)
            total = multiply(own_ddt, load_adjacent(weight + at, r, mask, ADJACENT), total)
            if dweight is not None:
                own = multiply(tl.trans(own_ddt), values, tl.zeros((BLOCK_D, BLOCK_R), tl.float32))
                store_adjacent(dweight + piece * (4 * D * R) + at, r, own, mask, ADJACENT)
        store_adjacent(
            dproj + row * (R + 2 * N), r, total.to(proj.dtype.element_ty), own_l & (r < R), ADJACENT
        )
    for first in range(0, 2 * N, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)[None, :]
        mask = own_l & (n < 2 * N)
        values = load_adjacent(dmaps + row * (2 * N), n, mask, ADJACENT)
        to = dproj + row * (R + 2 * N) + R
        store_adjacent(to, n, values.to(proj.dtype.element_ty), mask, ADJACENT)
