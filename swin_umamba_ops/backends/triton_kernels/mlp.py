"""Triton kernels of the hidden layer between two linear layers: its GELU, forward and backward.

For 16-bit inputs a program computes a tile of the hidden layer with its own matrix product, so that
the input of GELU is never in memory; for other inputs a library computes the products.
"""

import triton
import triton.language as tl


@triton.jit
def _gelu(h):
    """GELU and its derivative."""
    below = 0.5 * (1.0 + tl.math.erf(h * 0.7071067811865476))
    return h * below, below + h * 0.3989422804014327 * tl.exp(-0.5 * h * h)


@triton.jit
def _product(
    a, b, rows, cols, M, E, K: tl.constexpr, b_row, b_col, BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """a (M, K), contiguous, times b (K, E) of these strides: the tile at rows and cols."""
    inner = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_E), tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + inner
        left = tl.load(
            a + rows[:, None] * K + k[None, :],
            mask=(rows[:, None] < M) & (k[None, :] < K),
            other=0.0,
        )
        right = tl.load(
            b + k[:, None] * b_row + cols[None, :] * b_col,
            mask=(k[:, None] < K) & (cols[None, :] < E),
            other=0.0,
        )
        if UPCAST:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, right, total)
    return total


@triton.jit(do_not_specialize=("M",))
def forward(
    x, weight, bias, hidden, M, E: tl.constexpr, C: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_K: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """hidden = gelu(x @ weight.T + bias); x (M, C), weight (E, C), hidden (M, E)."""
    blocks = tl.cdiv(E, BLOCK_E)
    program = tl.program_id(0)
    rows = (program // blocks * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    cols = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    h = _product(x, weight, rows, cols, M, E, C, 1, C, BLOCK_K, UPCAST, BLOCK_M, BLOCK_E)
    h += tl.load(bias + cols, mask=cols < E, other=0.0).to(tl.float32)[None, :]
    out, _ = _gelu(h)
    inside = (rows[:, None] < M) & (cols[None, :] < E)
    tl.store(hidden + rows[:, None] * E + cols[None, :], out, mask=inside)


@triton.jit(do_not_specialize=("M",))
def backward(
    dy, x, weight1, bias1, weight2, hidden, dhidden, sums,
    M, E: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_K: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Recompute the hidden layer, and the gradient before GELU, (M, E); sums (blocks of rows, E):
    each block's part of bias1's gradient. dy (M, F), weight1 (E, C), weight2 (F, E)."""
    blocks = tl.cdiv(E, BLOCK_E)
    program = tl.program_id(0)
    block = program // blocks
    rows = (block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    cols = program % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    h = _product(x, weight1, rows, cols, M, E, C, 1, C, BLOCK_K, UPCAST, BLOCK_M, BLOCK_E)
    h += tl.load(bias1 + cols, mask=cols < E, other=0.0).to(tl.float32)[None, :]
    out, slope = _gelu(h)
    inside = (rows[:, None] < M) & (cols[None, :] < E)
    where = rows[:, None] * E + cols[None, :]
    tl.store(hidden + where, out, mask=inside)
    # Rows past the end have no gradient: dy is 0 there.
    slope *= _product(dy, weight2, rows, cols, M, E, F, E, 1, BLOCK_K, UPCAST, BLOCK_M, BLOCK_E)
    tl.store(dhidden + where, slope, mask=inside)
    tl.store(sums + block * E + cols, tl.sum(slope, axis=0), mask=cols < E)


@triton.jit(do_not_specialize=("count",))
def activate(h, out, count, BLOCK: tl.constexpr):
    """out = gelu(h), both of `count` values; out may be h."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values, _ = _gelu(tl.load(h + i, mask=i < count, other=0.0))
    tl.store(out + i, values, mask=i < count)


@triton.jit(do_not_specialize=("count",))
def activate_backward(h, dout, count, BLOCK: tl.constexpr):
    """In place: gelu(h), and the gradient with respect to h from that with respect to gelu(h)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values, slope = _gelu(tl.load(h + i, mask=i < count, other=0.0))
    tl.store(h + i, values, mask=i < count)
    slope *= tl.load(dout + i, mask=i < count, other=0.0)
    tl.store(dout + i, slope, mask=i < count)
