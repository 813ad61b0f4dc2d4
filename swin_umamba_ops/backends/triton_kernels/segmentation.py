"""Triton kernels of a segmentation loss's sums: a program takes pixels of one image, each with all
of its classes, in registers."""

import triton
import triton.language as tl

_SIZES = ("chunks", "blocks")


@triton.jit
def _pixels(
    logits, target, image, first, cols, L, C, stride_b, stride_c, stride_l, PIXELS: tl.constexpr
):  # fmt: skip
    """For the pixels from `first` on: logits minus the largest, probabilities, the logarithm of the
    sum of exponentials, labels, their one-hot truth, the logits' offsets, and which exist."""
    pixels = first + tl.arange(0, PIXELS)
    here = pixels < L
    inside = here[:, None] & (cols < C)[None, :]
    start = image.to(tl.int64) * stride_b
    where = start + pixels[:, None].to(tl.int64) * stride_l + cols[None, :] * stride_c
    values = tl.load(logits + where, mask=inside, other=0.0).to(tl.float32)
    values = tl.where((cols < C)[None, :], values, float("-inf"))
    labels = tl.load(target + image.to(tl.int64) * L + pixels, mask=here, other=-1)
    shifted = values - tl.max(values, axis=1)[:, None]
    each = tl.exp(shifted)
    total = tl.sum(each, axis=1)
    truth = cols[None, :] == labels[:, None]
    return shifted, each / total[:, None], tl.log(total), labels, truth, where, inside


@triton.jit(do_not_specialize=_SIZES)
def forward(
    logits, target, sums, L, C, stride_b, stride_c, stride_l, chunks, blocks,
    PIXELS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """sums (B, chunks, 2 * C), each of `blocks` times PIXELS pixels: the cross-entropy, how many
    pixels are known, and of all classes but the first, overlaps and totals.

    A label that is not a class makes the cross-entropy NaN.
    """
    chunk, image = tl.program_id(0), tl.program_id(1)
    cols = tl.arange(0, COLS)
    entropy = tl.zeros((PIXELS,), tl.float32)
    count = tl.zeros((PIXELS,), tl.float32)
    overlap = tl.zeros((PIXELS, COLS), tl.float32)
    both = tl.zeros((PIXELS, COLS), tl.float32)
    end = tl.minimum((chunk + 1) * blocks, tl.cdiv(L, PIXELS))
    for block in range(chunk * blocks, end):
        shifted, probability, log_total, labels, truth, _, _ = _pixels(
            logits, target, image, block * PIXELS, cols, L, C, stride_b, stride_c, stride_l, PIXELS
        )  # fmt: skip
        known = labels != -1
        own = log_total - tl.sum(tl.where(truth, shifted, 0.0), axis=1)
        entropy += tl.where(known, own, 0.0)
        entropy = tl.where((labels < -1) | (labels >= C), float("nan"), entropy)
        count += known.to(tl.float32)
        overlap += tl.where(truth, probability, 0.0)
        both += tl.where(known[:, None], probability, 0.0) + truth.to(tl.float32)
    result = sums + (image.to(tl.int64) * chunks + chunk) * 2 * C
    tl.store(result, tl.sum(entropy, axis=0))
    tl.store(result + 1, tl.sum(count, axis=0))
    foreground = (cols >= 1) & (cols < C)
    tl.store(result + 1 + cols, tl.sum(overlap, axis=0), mask=foreground)
    tl.store(result + C + cols, tl.sum(both, axis=0), mask=foreground)


@triton.jit(do_not_specialize=_SIZES)
def backward(
    dsums, logits, target, dlogits, L, C, stride_b, stride_c, stride_l, chunks, blocks,
    PIXELS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dlogits, laid out like the logits; dsums (B, 2 * C), as `forward`'s without the chunks."""
    chunk, image = tl.program_id(0), tl.program_id(1)
    cols = tl.arange(0, COLS)
    foreground = (cols >= 1) & (cols < C)
    own = dsums + image * 2 * C
    d_entropy = tl.load(own)
    d_overlap = tl.load(own + 1 + cols, mask=foreground, other=0.0)
    d_both = tl.load(own + C + cols, mask=foreground, other=0.0)
    end = tl.minimum((chunk + 1) * blocks, tl.cdiv(L, PIXELS))
    for block in range(chunk * blocks, end):
        _, probability, _, labels, truth, where, inside = _pixels(
            logits, target, image, block * PIXELS, cols, L, C, stride_b, stride_c, stride_l, PIXELS
        )  # fmt: skip
        known = (labels != -1)[:, None]
        g = tl.where(truth, d_overlap[None, :], 0.0) + tl.where(known, d_both[None, :], 0.0)
        mean = tl.sum(g * probability, axis=1)
        out = probability * (g - mean[:, None])
        out += tl.where(known, d_entropy, 0.0) * (probability - truth.to(tl.float32))
        tl.store(dlogits + where, out, mask=inside)
