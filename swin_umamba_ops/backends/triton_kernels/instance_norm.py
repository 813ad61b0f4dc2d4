"""Triton kernels of the instance norm: channels last, one image's chunk of positions a program.

A first kernel sums over every chunk, a second adds up the chunks' sums and applies them. Sums for
the variance are taken of the distance to the channel's first value, so that a large mean costs no
digits. STAGES: how many steps of a loop over positions are being read at a time.
"""

import triton
import triton.language as tl

_SIZES = ("L", "chunks", "length", "sums_stride")


@triton.jit
def _rows(x, stride, image, first, end, channels, L, C, ROWS: tl.constexpr):
    """Values (ROWS, BLOCK_C) of positions from `first` on, `stride` apart; their offsets if they
    were C apart; and a mask of valid ones."""
    positions = first + tl.arange(0, ROWS)
    inside = (positions < end)[:, None] & (channels < C)[None, :]
    rows = (image.to(tl.int64) * L + positions)[:, None]
    values = tl.load(x + rows * stride + channels[None, :], mask=inside, other=0.0)
    return values.to(tl.float32), rows * C + channels[None, :], inside


@triton.jit
def _last_first():
    """The image of a program that reads what another kernel has just read: the last one first, as
    the cache still holds that."""
    return tl.num_programs(1) - 1 - tl.program_id(1)


@triton.jit
def _reduce_chunks(sums, image, kind, channels, chunks, C, sums_stride, CHUNKS: tl.constexpr):
    """The sum over an image's chunks of one kind of sum: sums (kinds, B, chunks, C)."""
    chunk = tl.arange(0, CHUNKS)
    start = sums + kind * sums_stride + image * chunks * C
    mask = (chunk < chunks)[:, None] & (channels < C)[None, :]
    parts = tl.load(start + chunk[:, None] * C + channels[None, :], mask=mask, other=0.0)
    return tl.sum(parts, axis=0)


@triton.jit
def _moments(x, sums, image, channels, L, C, chunks, sums_stride, eps, CHUNKS: tl.constexpr):
    """Mean and reciprocal deviation, from the sums of `moments`."""
    base = image.to(tl.int64) * L * C + channels
    origin = tl.load(x + base, mask=channels < C, other=0.0).to(tl.float32)
    first = _reduce_chunks(sums, image, 0, channels, chunks, C, sums_stride, CHUNKS) / L
    second = _reduce_chunks(sums, image, 1, channels, chunks, C, sums_stride, CHUNKS) / L
    variance = tl.maximum(second - first * first, 0.0)
    return origin + first, 1.0 / tl.sqrt(variance + eps)


@triton.jit(do_not_specialize=_SIZES)
def moments(
    x, sums, L, C, chunks, length, sums_stride,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """sums (2, B, chunks, C) of x - x[first] and its square, over each chunk of `length`."""
    chunk, image = tl.program_id(0), tl.program_id(1)
    channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    base = image.to(tl.int64) * L * C + channels
    origin = tl.load(x + base, mask=channels < C, other=0.0).to(tl.float32)
    first = tl.zeros((ROWS, BLOCK_C), tl.float32)
    second = tl.zeros((ROWS, BLOCK_C), tl.float32)
    end = tl.minimum((chunk + 1) * length, L)
    for start in tl.range(chunk * length, end, ROWS, num_stages=STAGES):
        values, _, inside = _rows(x, C, image, start, end, channels, L, C, ROWS)
        values = tl.where(inside, values - origin[None, :], 0.0)
        first += values
        second += values * values
    own = sums + (image * chunks + chunk) * C + channels
    tl.store(own, tl.sum(first, axis=0), mask=channels < C)
    tl.store(own + sums_stride, tl.sum(second, axis=0), mask=channels < C)


@triton.jit
def _optional(pointer, channels, C, default: tl.constexpr, PRESENT: tl.constexpr):
    if PRESENT:
        return tl.load(pointer + channels, mask=channels < C, other=0.0).to(tl.float32)
    return tl.full(channels.shape, default, tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def apply(
    x, sums, weight, bias, residual, residual_sums, y, stats,
    L, C, chunks, length, sums_stride, eps, slope,
    AFFINE: tl.constexpr, RESIDUAL: tl.constexpr, KNOWN: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """y = leaky_relu(normalised(x) * weight + bias + residual, slope).

    RESIDUAL: 0 none, 1 unchanged, 2 normalized too. stats (2 or 4, B, C): mean and reciprocal
    deviation of x, and of a normalized residual, for the backward pass. KNOWN: x's statistics are
    given, and sums are not read.
    """
    chunk, image = tl.program_id(0), _last_first()
    channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < C
    images = sums_stride // chunks  # B * C
    keep = stats + image * C + channels
    if KNOWN:
        mean = tl.load(keep, mask=inside_c, other=0.0)
        scale = tl.load(keep + images, mask=inside_c, other=0.0)
    else:
        mean, scale = _moments(x, sums, image, channels, L, C, chunks, sums_stride, eps, CHUNKS)
        if chunk == 0:
            tl.store(keep, mean, mask=inside_c)
            tl.store(keep + images, scale, mask=inside_c)
    if RESIDUAL == 2:
        r_mean, r_scale = _moments(
            residual, residual_sums, image, channels, L, C, chunks, sums_stride, eps, CHUNKS
        )
        if chunk == 0:
            tl.store(keep + 2 * images, r_mean, mask=inside_c)
            tl.store(keep + 3 * images, r_scale, mask=inside_c)
    w = _optional(weight, channels, C, 1.0, AFFINE) * scale
    b = _optional(bias, channels, C, 0.0, AFFINE) - mean * w
    end = tl.minimum((chunk + 1) * length, L)
    for start in tl.range(chunk * length, end, ROWS, num_stages=STAGES):
        values, where, inside = _rows(x, C, image, start, end, channels, L, C, ROWS)
        out = values * w[None, :] + b[None, :]
        if RESIDUAL > 0:
            more = tl.load(residual + where, mask=inside, other=0.0).to(tl.float32)
            if RESIDUAL == 2:
                more = (more - r_mean[None, :]) * r_scale[None, :]
            out += more
        tl.store(y + where, tl.where(out > 0, out, out * slope), mask=inside)


@triton.jit
def _gradient(
    dy, dy_stride, x, residual, image, start, end, channels, L, C, slope,
    mean, scale, r_mean, r_scale, w, b, RESIDUAL: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient before the leaky ReLU, and x and the residual, normalized."""
    g, where, inside = _rows(dy, dy_stride, image, start, end, channels, L, C, ROWS)
    normal = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    normal = tl.where(inside, (normal - mean[None, :]) * scale[None, :], 0.0)
    out = normal * w[None, :] + b[None, :]
    other = normal
    if RESIDUAL > 0:
        other = tl.load(residual + where, mask=inside, other=0.0).to(tl.float32)
        if RESIDUAL == 2:
            other = tl.where(inside, (other - r_mean[None, :]) * r_scale[None, :], 0.0)
        out += other
    return tl.where(out > 0, g, g * slope), normal, other, where, inside


@triton.jit(do_not_specialize=_SIZES)
def gradient_sums(
    dy, dy_stride, x, weight, bias, residual, stats, sums,
    L, C, chunks, length, sums_stride, slope,
    AFFINE: tl.constexpr, RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """sums (3, B, chunks, C): of the gradient, of it times normalized x, times the residual's.

    Positions of dy are dy_stride apart: it may be part of a larger map's channels.
    """
    chunk, image = tl.program_id(0), tl.program_id(1)
    channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < C
    images = sums_stride // chunks
    kept = stats + image * C + channels
    mean = tl.load(kept, mask=inside_c, other=0.0)
    scale = tl.load(kept + images, mask=inside_c, other=0.0)
    r_mean = mean
    r_scale = scale
    if RESIDUAL == 2:
        r_mean = tl.load(kept + 2 * images, mask=inside_c, other=0.0)
        r_scale = tl.load(kept + 3 * images, mask=inside_c, other=0.0)
    w = _optional(weight, channels, C, 1.0, AFFINE)
    b = _optional(bias, channels, C, 0.0, AFFINE)
    plain = tl.zeros((ROWS, BLOCK_C), tl.float32)
    along = tl.zeros((ROWS, BLOCK_C), tl.float32)
    beside = tl.zeros((ROWS, BLOCK_C), tl.float32)
    end = tl.minimum((chunk + 1) * length, L)
    for start in tl.range(chunk * length, end, ROWS, num_stages=STAGES):
        g, normal, other, _, _ = _gradient(
            dy, dy_stride, x, residual, image, start, end, channels, L, C, slope,
            mean, scale, r_mean, r_scale, w, b, RESIDUAL, ROWS,
        )  # fmt: skip
        plain += g
        along += g * normal
        if RESIDUAL == 2:
            beside += g * other
    own = sums + (image * chunks + chunk) * C + channels
    tl.store(own, tl.sum(plain, axis=0), mask=inside_c)
    tl.store(own + sums_stride, tl.sum(along, axis=0), mask=inside_c)
    if RESIDUAL == 2:
        tl.store(own + 2 * sums_stride, tl.sum(beside, axis=0), mask=inside_c)


@triton.jit(do_not_specialize=_SIZES)
def gradient(
    dy, dy_stride, x, weight, bias, residual, stats, sums, dx, dresidual,
    L, C, chunks, length, sums_stride, slope,
    AFFINE: tl.constexpr, RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_C: tl.constexpr, STAGES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """dx and dresidual, like x; dy as in `gradient_sums`."""
    chunk, image = tl.program_id(0), _last_first()
    channels = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside_c = channels < C
    images = sums_stride // chunks
    kept = stats + image * C + channels
    mean = tl.load(kept, mask=inside_c, other=0.0)
    scale = tl.load(kept + images, mask=inside_c, other=0.0)
    plain = _reduce_chunks(sums, image, 0, channels, chunks, C, sums_stride, CHUNKS) / L
    along = _reduce_chunks(sums, image, 1, channels, chunks, C, sums_stride, CHUNKS) / L
    r_mean = mean
    r_scale = scale
    beside = along
    if RESIDUAL == 2:
        r_mean = tl.load(kept + 2 * images, mask=inside_c, other=0.0)
        r_scale = tl.load(kept + 3 * images, mask=inside_c, other=0.0)
        beside = _reduce_chunks(sums, image, 2, channels, chunks, C, sums_stride, CHUNKS) / L
    w = _optional(weight, channels, C, 1.0, AFFINE)
    b = _optional(bias, channels, C, 0.0, AFFINE)
    end = tl.minimum((chunk + 1) * length, L)
    for start in tl.range(chunk * length, end, ROWS, num_stages=STAGES):
        g, normal, other, where, inside = _gradient(
            dy, dy_stride, x, residual, image, start, end, channels, L, C, slope,
            mean, scale, r_mean, r_scale, w, b, RESIDUAL, ROWS,
        )  # fmt: skip
        out = (g - plain[None, :] - normal * along[None, :]) * (w * scale)[None, :]
        tl.store(dx + where, out, mask=inside)
        if RESIDUAL == 1:
            tl.store(dresidual + where, g, mask=inside)
        if RESIDUAL == 2:
            out = (g - plain[None, :] - other * beside[None, :]) * r_scale[None, :]
            tl.store(dresidual + where, out, mask=inside)
