"""Triton kernels of the depthwise convolution: channels last, in tiles of one image row."""

import triton
import triton.language as tl

_SIZES = ("B", "H", "W", "share")


@triton.jit
def _place(tile, H, W, BLOCK_W: tl.constexpr):
    """Image, row and columns of a tile: tiles run down an image, so that rows are reused soon, then
    across it."""
    strip = tile // H
    across = tl.cdiv(W, BLOCK_W)
    return strip // across, tile % H, (strip % across) * BLOCK_W + tl.arange(0, BLOCK_W)


@triton.jit
def _shifted(x, image, row, columns, channels, H, W, D):
    """Values (BLOCK_W, BLOCK_C) of an image row, zero outside of the image."""
    # Down the whole column of a tile, so that the mask is made of vectors alone.
    rows = row + 0 * columns
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    where = (image * H + rows).to(tl.int64) * W + columns
    mask = inside[:, None] & (channels < D)[None, :]
    return tl.load(x + where[:, None] * D + channels[None, :], mask=mask, other=0.0)


@triton.jit
def _taps(weight, channels, D, KK: tl.constexpr):
    """The taps of a block of channels: a tuple of KK vectors."""
    taps = ()
    for tap in tl.static_range(KK):
        w = tl.load(weight + channels * KK + tap, mask=channels < D, other=0.0)
        taps = taps + (w.to(tl.float32),)
    return taps


@triton.jit
def _bias(bias, channels, D):
    """The biases of a block of channels, zero if there are none."""
    values = tl.zeros(channels.shape, tl.float32)
    if bias is not None:
        values += tl.load(bias + channels, mask=channels < D, other=0.0).to(tl.float32)
    return values


@triton.jit(do_not_specialize=_SIZES)
def convolve(
    x, weight, bias, y, B, H, W, D, share,
    BACKWARD: tl.constexpr, K: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = silu(conv(x) + bias); BACKWARD: from the gradient of conv(x), x, to that of its input.

    x, y (B, H, W, D); weight (D, K * K). A program takes `share` tiles.
    """
    HALF: tl.constexpr = K // 2
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    taps = _taps(weight, channels, D, K * K)
    b = _bias(bias, channels, D)
    first = tl.program_id(1) * share
    for tile in range(first, tl.minimum(first + share, B * H * tl.cdiv(W, BLOCK_W))):
        image, row, columns = _place(tile, H, W, BLOCK_W)
        total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
        for i in tl.static_range(K):
            for j in tl.static_range(K):
                values = _shifted(x, image, row + i - HALF, columns + j - HALF, channels, H, W, D)
                if BACKWARD:
                    total += values.to(tl.float32) * taps[K * K - 1 - (i * K + j)][None, :]
                else:
                    total += values.to(tl.float32) * taps[i * K + j][None, :]
        if not BACKWARD:
            total += b[None, :]
            total = total * tl.sigmoid(total)
        where = (image * H + row + 0 * columns).to(tl.int64) * W + columns
        mask = (columns < W)[:, None] & (channels < D)[None, :]
        tl.store(y + where[:, None] * D + channels[None, :], total, mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def backward_of_activation(
    dy, x, weight, bias, dconv, sums, B, H, W, D, share,
    K: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dconv, the gradient of conv(x) + bias, which is recomputed; and the parameters' sums.

    dy, x, dconv (B, H, W, D); sums (programs, K * K + 1, D): each program's share of the
    gradients of the K * K taps and of the bias.
    """
    HALF: tl.constexpr = K // 2
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < D
    program = tl.program_id(1)
    b = _bias(bias, channels, D)
    taps = _taps(weight, channels, D, K * K)
    dtaps = ()
    for _ in tl.static_range(K * K):
        dtaps = dtaps + (tl.zeros((BLOCK_W, BLOCK_C), tl.float32),)
    dbias = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    first = program * share
    for tile in range(first, tl.minimum(first + share, B * H * tl.cdiv(W, BLOCK_W))):
        image, row, columns = _place(tile, H, W, BLOCK_W)
        around = ()
        total = tl.zeros((BLOCK_W, BLOCK_C), tl.float32) + b[None, :]
        for i in tl.static_range(K):
            for j in tl.static_range(K):
                values = _shifted(x, image, row + i - HALF, columns + j - HALF, channels, H, W, D)
                around = around + (values,)
                total += values.to(tl.float32) * taps[i * K + j][None, :]
        where = (image * H + row + 0 * columns).to(tl.int64) * W + columns
        mask = (columns < W)[:, None] & inside_c[None, :]
        g = tl.load(dy + where[:, None] * D + channels[None, :], mask=mask, other=0.0)
        s = tl.sigmoid(total)
        g = g.to(tl.float32) * s * (1.0 + total * (1.0 - s))
        tl.store(dconv + where[:, None] * D + channels[None, :], g, mask=mask)
        dbias += g
        more = ()
        for tap in tl.static_range(K * K):
            more = more + (dtaps[tap] + g * around[tap].to(tl.float32),)
        dtaps = more
    own = sums + program * ((K * K + 1) * D) + channels
    for tap in tl.static_range(K * K):
        tl.store(own + tap * D, tl.sum(dtaps[tap], axis=0), mask=inside_c)
    tl.store(own + K * K * D, tl.sum(dbias, axis=0), mask=inside_c)
