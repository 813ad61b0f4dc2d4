"""Triton kernels of the depthwise convolution: channels last, in tiles of one image row.

A program goes down strips of BLOCK_W columns. Each row of x is added to the sums of all rows of y
that it takes part in, and is loaded while the row before is being added.
"""

import triton
import triton.language as tl

_SIZES = ("B", "H", "W", "share")


@triton.jit
def _part(
    strip, first, last, H, W, D, stride, channels, BLOCK_W: tl.constexpr, K: tl.constexpr
):  # fmt: skip
    """Of a strip of tiles, of which some of first to last belong to it.

    Returns its columns, its rows' range and the end of the rows that they read, the places of row
    0 in x, whose positions are `stride` apart, and in maps (B, H, W, D), and which of them exist.
    """
    across = tl.cdiv(W, BLOCK_W)
    columns = (strip % across) * BLOCK_W + tl.arange(0, BLOCK_W)
    start = tl.maximum(first - strip * H, 0)
    image, end = (strip // across).to(tl.int64), tl.minimum(last - strip * H, H)
    position = (image * H * W + columns)[:, None]
    places, to = position * stride + channels[None, :], position * D + channels[None, :]
    mask = (columns < W)[:, None] & (channels < D)[None, :]
    return columns, start, end, tl.minimum(end + K // 2, H), places, to, mask


@triton.jit
def _zeros(COUNT: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr):
    """A tuple of COUNT tiles."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros((BLOCK_W, BLOCK_C), tl.float32),)
    return tiles


@triton.jit
def _row(x, places, stride, row, end, columns, W, inside_c, K: tl.constexpr):
    """A row of x shifted by each tap's distance: a tuple of K tiles, zero outside of the image and
    from the row `end` on.

    places: of the tile's values in row 0; positions of x are `stride` apart.
    """
    shifted = ()
    # One a column, so that masks are made of vectors alone.
    rows = row + 0 * columns
    for j in tl.static_range(K):
        there = columns + (j - K // 2)
        inside = (there >= 0) & (there < W) & (rows >= 0) & (rows < end)
        at = places + (row * W.to(tl.int64) + (j - K // 2)) * stride
        values = tl.load(x + at, mask=inside[:, None] & inside_c[None, :], other=0.0)
        shifted = shifted + (values,)
    return shifted


@triton.jit
def _add(sums, row, taps, BACKWARD: tl.constexpr, K: tl.constexpr):
    """K tiles: the next K rows of y, after a row of x is added to them.

    sums: K - 1 tiles, these rows before that, except the last one. BACKWARD: mirrored taps.
    """
    added = ()
    for i in tl.static_range(K):
        total = tl.zeros(row[0].shape, tl.float32)
        if i < K - 1:
            total = sums[i]
        for j in tl.static_range(K):
            if BACKWARD:
                total += row[j].to(tl.float32) * taps[i * K + K - 1 - j][None, :]
            else:
                total += row[j].to(tl.float32) * taps[(K - 1 - i) * K + j][None, :]
        added = added + (total,)
    return added


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
    x, stride, weight, bias, y, B, H, W, D, share,
    BACKWARD: tl.constexpr, K: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = silu(conv(x) + bias); BACKWARD: from the gradient of conv(x), x, to that of its input.

    x, y (B, H, W, D), positions of x `stride` apart; weight (D, K * K). A program takes `share`
    tiles.
    """
    HALF: tl.constexpr = K // 2
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < D
    taps = _taps(weight, channels, D, K * K)
    b = _bias(bias, channels, D)
    first = tl.program_id(1) * share
    last = tl.minimum(first + share, B * H * tl.cdiv(W, BLOCK_W))
    for strip in range(first // H, tl.cdiv(last, H)):
        columns, start, end, used, places, to, mask = _part(
            strip, first, last, H, W, D, stride, channels, BLOCK_W, K
        )
        sums = _zeros(K - 1, BLOCK_W, BLOCK_C)
        below = _row(x, places, stride, start - HALF, used, columns, W, inside_c, K)
        for i in tl.static_range(K - 1):
            here = below
            below = _row(x, places, stride, start - HALF + i + 1, used, columns, W, inside_c, K)
            sums = _add(sums, here, taps, BACKWARD, K)[1:]
        for row in range(start, end):
            here = below
            below = _row(x, places, stride, row + HALF + 1, used, columns, W, inside_c, K)
            added = _add(sums, here, taps, BACKWARD, K)
            total = added[0]
            sums = added[1:]
            if not BACKWARD:
                total += b[None, :]
                total = total * tl.sigmoid(total)
            tl.store(y + to + row * W.to(tl.int64) * D, total, mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def backward_of_activation(
    dy, x, stride, weight, bias, dconv, sums, B, H, W, D, share,
    K: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dconv, the gradient of conv(x) + bias, which is recomputed; and the parameters' sums.

    dy, x, dconv (B, H, W, D), positions of x `stride` apart; sums (programs, K * K + 1, D): each
    program's share of the gradients of the K * K taps and of the bias.
    """
    HALF: tl.constexpr = K // 2
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < D
    program = tl.program_id(1)
    b = _bias(bias, channels, D)
    taps = _taps(weight, channels, D, K * K)
    dtaps = _zeros(K * K, BLOCK_W, BLOCK_C)
    dbias = tl.zeros((BLOCK_W, BLOCK_C), tl.float32)
    first = program * share
    last = tl.minimum(first + share, B * H * tl.cdiv(W, BLOCK_W))
    for strip in range(first // H, tl.cdiv(last, H)):
        columns, start, end, used, places, to, mask = _part(
            strip, first, last, H, W, D, stride, channels, BLOCK_W, K
        )
        rows_sums = _zeros(K - 1, BLOCK_W, BLOCK_C)
        around = ()
        below = _row(x, places, stride, start - HALF, used, columns, W, inside_c, K)
        for i in tl.static_range(K - 1):
            around = around + below
            here = below
            below = _row(x, places, stride, start - HALF + i + 1, used, columns, W, inside_c, K)
            rows_sums = _add(rows_sums, here, taps, False, K)[1:]
        dy_below = _row(dy, to, D, start, end, columns, W, inside_c, 1)
        for row in range(start, end):
            around = around + below
            here = below
            dy_here = dy_below
            below = _row(x, places, stride, row + HALF + 1, used, columns, W, inside_c, K)
            dy_below = _row(dy, to, D, row + 1, end, columns, W, inside_c, 1)
            added = _add(rows_sums, here, taps, False, K)
            rows_sums = added[1:]
            total = added[0] + b[None, :]
            s = tl.sigmoid(total)
            g = dy_here[0].to(tl.float32) * s * (1.0 + total * (1.0 - s))
            tl.store(dconv + to + row * W.to(tl.int64) * D, g, mask=mask)
            dbias += g
            more = ()
            for tap in tl.static_range(K * K):
                more = more + (dtaps[tap] + g * around[tap].to(tl.float32),)
            dtaps = more
            around = around[K:]
    own = sums + program * ((K * K + 1) * D) + channels
    for tap in tl.static_range(K * K):
        tl.store(own + tap * D, tl.sum(dtaps[tap], axis=0), mask=inside_c)
    tl.store(own + K * K * D, tl.sum(dbias, axis=0), mask=inside_c)
