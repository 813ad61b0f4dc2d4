"""Triton kernel of a 3x3 convolution's weight gradient, for few channels and many pixels.

A program takes blocks of adjacent pixels and one row of the filter: the products of dy's block,
transposed, with x's block shifted by one pixel to the left, unshifted, and to the right.
"""

import triton
import triton.language as tl


@triton.jit
def _upcast(values, UPCAST: tl.constexpr):
    if UPCAST:
        values = values.to(tl.float32)
    return values


@triton.jit(do_not_specialize=("pixels", "H", "W", "programs"))
def weight_gradient(
    dy, x, sums, pixels, H, W, programs,
    C: tl.constexpr, E: tl.constexpr, COLS_C: tl.constexpr, COLS_E: tl.constexpr,
    PIXELS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dy (pixels, E), x (pixels, C), pixels = B * H * W; sums (programs, 3, 3, E, C), float32: each
    program's part of the gradient, by row and column of the filter. UPCAST: multiply in float32,
    since Triton's interpreter has no bfloat16 products."""
    row = tl.program_id(0)
    program = tl.program_id(1)
    e = tl.arange(0, COLS_E)
    c = tl.arange(0, COLS_C)
    left = tl.zeros((COLS_E, COLS_C), tl.float32)
    middle = tl.zeros((COLS_E, COLS_C), tl.float32)
    right = tl.zeros((COLS_E, COLS_C), tl.float32)
    for block in range(program, tl.cdiv(pixels, PIXELS), programs):
        p = block * PIXELS + tl.arange(0, PIXELS)
        column = p % W
        line = (p // W) % H + row - 1
        at = p.to(tl.int64)
        g = tl.load(
            dy + at[:, None] * E + e[None, :],
            mask=(p < pixels)[:, None] & (e < E)[None, :],
            other=0.0,
        )
        g = _upcast(tl.trans(g), UPCAST)
        there = (p < pixels) & (line >= 0) & (line < H)
        from_ = x + (at + (row - 1) * W)[:, None] * C + c[None, :]
        own = (c < C)[None, :]
        x_left = tl.load(from_ - C, mask=(there & (column > 0))[:, None] & own, other=0.0)
        left = tl.dot(g, _upcast(x_left, UPCAST), left)
        x_middle = tl.load(from_, mask=there[:, None] & own, other=0.0)
        middle = tl.dot(g, _upcast(x_middle, UPCAST), middle)
        x_right = tl.load(from_ + C, mask=(there & (column < W - 1))[:, None] & own, other=0.0)
        right = tl.dot(g, _upcast(x_right, UPCAST), right)
    to = sums + ((program * 9 + row * 3) * E + e[:, None]) * C + c[None, :]
    own = (e < E)[:, None] & (c < C)[None, :]
    tl.store(to, left, mask=own)
    tl.store(to + E * C, middle, mask=own)
    tl.store(to + 2 * E * C, right, mask=own)
