"""dt = softplus(weight @ dt_r + bias) in float32: of whole images, or of a program's own chunk."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised
from swin_umamba_ops.backends.triton_kernels.tile import load_channels, start


@triton.jit
def softplus(raw):
    """log(1 + exp(raw)) = max(raw, 0) + log(1 + e), e = exp(-|raw|). log(1 + e) / e is a
    polynomial of least relative error (3e-8; csrc/cuda/math.cuh): 1 + e would lose e's digits.
    """
    e = tl.exp(-tl.abs(raw))
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
    """Values in a row of `stage_dt`: a matrix product has 16 columns or more."""
    return max(C, 16)


@triton.jit
def load_staged(
    staged, row, dl, dh, U: tl.constexpr, DH: tl.constexpr, DL: tl.constexpr, T: tl.constexpr
):
    """U rows of `stage_dt` from `row` on, or the last ones, each as a tile's channels."""
    rows = ()
    at = staged + tl.minimum(row, T - U) * staged_row(DH * DL) + dl
    for i in tl.static_range(U):
        rows = rows + (load_channels(at + i * staged_row(DH * DL), dh, None, DH, True, 16),)
    return rows


@triton.jit
def stage_dt(
    proj, weight, bias, to, first, k, H, W, run, channels, R, row_stride,
    C: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """dt of C channels, of which there are `channels`, in the T steps of an image from `first` on,
    into rows at `to`; 0 in steps past the end.

    proj, of half precision, is the image's first position and the direction's first of R values;
    weight (channels, R) and bias (channels,) are of the first channel.
    """
    COLUMNS: tl.constexpr = 16
    tl.debug_barrier()  # other lanes may still read the rows before
    row = tl.arange(0, T)
    step = first + row
    at, _ = start(tl.minimum(step, H * W - 1), k, H, W, run, True)
    rows = proj + at.to(tl.int64)[:, None] * row_stride
    for column in range(0, C, COLUMNS):
        d = column + tl.arange(0, COLUMNS)
        total = tl.zeros((T, COLUMNS), tl.float32)
        for rank in range(0, R, 16):
            r = rank + tl.arange(0, 16)
            values = tl.load(rows + r[None, :], mask=r[None, :] < R, other=0.0)
            w = tl.load(
                weight + d[None, :] * R + r[:, None],
                mask=(d[None, :] < channels) & (r[:, None] < R), other=0.0,
            )  # fmt: skip
            # The products of half values are exact in tf32 too.
            total = tl.dot(values.to(tl.float32), w.to(tl.float32), total, input_precision="tf32")
        total += tl.load(bias + d, mask=d < channels, other=0.0)[None, :]
        dt = tl.where(step[:, None] < H * W, softplus(total), 0.0)
        tl.store(to + row[:, None] * staged_row(C) + d[None, :], dt)
    tl.debug_barrier()


@triton.jit(do_not_specialize=unspecialised.PROJECT)
def image_kernel(
    proj, weight, bias, dt, maps, dt_r, dmaps, rows, D, R,
    N: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """proj: rows of 4 directions, each R + 2N values; weight (4, D, R); bias (4, D);
    dt (4, rows, D); maps (rows, 4, 2N): proj's last 2N values in float32. Not of a forward pass:
    dt_r (4, rows, R), proj's first R values as they are, and dmaps, like maps, zeros."""
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    k = tl.program_id(1)
    l = pid // blocks * BLOCK_L + tl.arange(0, BLOCK_L).to(tl.int64)
    d = pid % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    row = (l * 4 + k)[:, None]
    own_l = l[:, None] < rows
    total = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for first in range(0, R, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        values = tl.load(
            proj + row * (R + 2 * N) + r[None, :], mask=own_l & (r[None, :] < R), other=0.0
        )
        if dt_r is not None:
            tl.store(
                dt_r + (k.to(tl.int64) * rows + l[:, None]) * R + r[None, :], values,
                mask=own_l & (r[None, :] < tl.where(pid % blocks == 0, R, 0)),
            )  # fmt: skip
        w = tl.load(
            weight + (k * D + d[None, :]) * R + r[:, None],
            mask=(d[None, :] < D) & (r[:, None] < R), other=0.0,
        )  # fmt: skip
        # The products of half values are exact in tf32 too.
        values = values.to(tl.float32)
        w = w.to(tl.float32)
        if EXACT:
            total += tl.dot(values, w, input_precision="ieee")
        else:
            total += tl.dot(values, w, input_precision="tf32")
    total += tl.load(bias + k * D + d, mask=d < D, other=0.0)[None, :]
    tl.store(
        dt + (k.to(tl.int64) * rows + l[:, None]) * D + d[None, :], softplus(total),
        mask=own_l & (d[None, :] < D),
    )  # fmt: skip
    if pid % blocks == 0:
        for first in range(0, 2 * N, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)[None, :]
            mask = own_l & (n < 2 * N)
            values = tl.load(proj + row * (R + 2 * N) + R + n, mask=mask)
            tl.store(maps + row * (2 * N) + n, values.to(tl.float32), mask=mask)
            if dmaps is not None:
                tl.store(dmaps + row * (2 * N) + n, tl.zeros_like(values).to(tl.float32), mask=mask)
