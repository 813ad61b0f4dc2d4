"""dt = softplus(weight @ dt_r + bias) for all directions, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

from swin_umamba_ops.backends.triton_kernels import unspecialised


@triton.jit
def softplus(raw):
    """log(1 + exp(raw)) = max(raw, 0) + 2 artanh(e / (2 + e)), e = exp(-|raw|): exact to the last
    digits where a logarithm of 1 + e would have lost e's."""
    e = tl.exp(-tl.abs(raw))
    z = e / (2 + e)
    w = z * z
    series = 1 / 13 + w * (1 / 15 + w / 17)
    series = 1 / 7 + w * (1 / 9 + w * (1 / 11 + w * series))
    series = 1 + w * (1 / 3 + w * (1 / 5 + w * series))
    return tl.maximum(raw, 0.0) + 2 * z * series


@triton.jit(do_not_specialize=unspecialised.PROJECT)
def dt_kernel(
    proj, weight, bias, dt, rows, D, R, row_stride, k_stride,
    BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """proj: rows of 4 directions; weight (4, D, R); bias (4, D); dt (4, rows, D)."""
    blocks = tl.cdiv(D, BLOCK_D)
    pid = tl.program_id(0)
    k = tl.program_id(1)
    l = pid // blocks * BLOCK_L + tl.arange(0, BLOCK_L).to(tl.int64)
    d = pid % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for first in range(0, R, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        values = tl.load(
            proj + l[:, None] * row_stride + k * k_stride + r[None, :],
            mask=(l[:, None] < rows) & (r[None, :] < R), other=0.0,
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
        mask=(l[:, None] < rows) & (d[None, :] < D),
    )  # fmt: skip
