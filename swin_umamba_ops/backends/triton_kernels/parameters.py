"""The contributions of a scan's parameters, and the reduction of their gradients over programs."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised


@triton.jit(do_not_specialize=unspecialised.PARAMETERS)
def skip_kernel(
    x, Ds, y, rows, pieces, PIECE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """y = (Ds[0] + Ds[1] + Ds[2] + Ds[3]) x, in float32; x and y (rows, D), Ds (4, D). D is a
    multiple of PIECE, the number of values in one access."""
    D = pieces * PIECE
    blocks = tl.cdiv(D, COLUMNS)
    pid = tl.program_id(0)
    row = pid // blocks * ROWS + tl.arange(0, ROWS).to(tl.int64)[:, None]
    d = (pid % blocks * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    total = tl.zeros((1, COLUMNS), tl.float32)
    for k in tl.static_range(4):
        total += tl.load(Ds + k * D + d, mask=d < D, other=0.0)
    mask = (row < rows) & (d < D)
    value = tl.load(x + row * D + d, mask=mask, other=0.0)
    tl.store(y + row * D + d, total * value.to(tl.float32), mask=mask)


@triton.jit
def _sum_rows(parts, column, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of these columns of parts (rows, width), in a fixed order."""
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, rows, ROWS):
        row = (first + tl.arange(0, ROWS).to(tl.int64))[:, None]
        mask = (row < rows) & (column < width)[None, :]
        total += tl.sum(tl.load(parts + row * width + column[None, :], mask=mask, other=0.0), 0)
    return total


@triton.jit(do_not_specialize=unspecialised.PARAMETERS)
def total_kernel(parts, total, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """total (width,): the sums of all rows of parts (rows, width), in a fixed order."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    result = _sum_rows(parts, column, rows, width, ROWS, COLUMNS)
    tl.store(total + column, result.to(total.dtype.element_ty), mask=column < width)


@triton.jit(do_not_specialize=unspecialised.PARAMETERS)
def sums_kernel(
    sums, A_logs, dA, dbias, dDs, rows, channels, N: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """dA (channels, N), dbias and dDs (channels,): the sums of all rows, in a fixed order. If
    A_logs is given, dA is its gradient."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    width = channels * (N + 2)
    total = _sum_rows(sums, column, rows, width, ROWS, COLUMNS)
    of_A = column < channels * N
    if A_logs is not None:
        total *= tl.where(of_A, -tl.exp(tl.load(A_logs + column, mask=of_A, other=0.0)), 1.0)
    tl.store(dA + column, total, mask=of_A)
    column -= channels * N
    tl.store(dbias + column, total, mask=(column >= 0) & (column < channels))
    column -= channels
    tl.store(dDs + column, total, mask=(column >= 0) & (column < channels))
