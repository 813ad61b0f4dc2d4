"""Triton kernels of the gated layer norm: a program processes whole rows, all in registers."""

import triton
import triton.language as tl

_SIZES = ("M", "programs")


@triton.jit
def _normalised(x, rows, cols, M, C, eps):
    """Normalized rows of x, and the reciprocal of their deviation."""
    inside = (rows[:, None] < M) & (cols[None, :] < C)
    values = tl.load(x + rows[:, None] * C + cols[None, :], mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=1) / C
    centred = tl.where(inside, values - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / C + eps)
    return centred * scale[:, None], scale, inside


@triton.jit
def _gate(gate, stride, rows, cols, inside):
    where = rows[:, None] * stride + cols[None, :]
    return tl.load(gate + where, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=_SIZES)
def forward(
    x, gate, gate_stride, weight, bias, y, M, C, eps,
    GATED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """y = normalised(x) * weight + bias, times silu(gate) if GATED; x, gate, y (M, C), rows of gate
    gate_stride apart."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    cols = tl.arange(0, COLS)
    normal, _, inside = _normalised(x, rows, cols, M, C, eps)
    w = tl.load(weight + cols, mask=cols < C, other=0.0).to(tl.float32)
    b = tl.load(bias + cols, mask=cols < C, other=0.0).to(tl.float32)
    out = normal * w[None, :] + b[None, :]
    where = rows[:, None] * C + cols[None, :]
    if GATED:
        z = _gate(gate, gate_stride, rows, cols, inside)
        out = out * z * tl.sigmoid(z)
    tl.store(y + where, out, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def backward(
    dy, x, gate, gate_stride, weight, bias, dx, dgate, sums, M, C, eps, programs,
    GATED: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dx, dgate (M, C); sums (2, programs, C): each program's part of dweight and dbias.

    Rows of gate are gate_stride apart. STAGES: how many iterations' loads are in flight.
    """
    program = tl.program_id(0)
    cols = tl.arange(0, COLS)
    w = tl.load(weight + cols, mask=cols < C, other=0.0).to(tl.float32)
    b = tl.load(bias + cols, mask=cols < C, other=0.0).to(tl.float32)
    dweight = tl.zeros((ROWS, COLS), tl.float32)
    dbias = tl.zeros((ROWS, COLS), tl.float32)
    for block in tl.range(program, tl.cdiv(M, ROWS), programs, num_stages=STAGES):
        rows = (block * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        normal, scale, inside = _normalised(x, rows, cols, M, C, eps)
        where = rows[:, None] * C + cols[None, :]
        g = tl.load(dy + where, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            z = _gate(gate, gate_stride, rows, cols, inside)
            s = tl.sigmoid(z)
            through = g * (normal * w[None, :] + b[None, :])
            tl.store(dgate + where, through * s * (1.0 + z * (1.0 - s)), mask=inside)
            g = g * z * s
        dweight += g * normal
        dbias += g
        g = g * w[None, :]
        mean = tl.sum(g, axis=1) / C
        along = tl.sum(g * normal, axis=1) / C
        out = (g - mean[:, None] - normal * along[:, None]) * scale[:, None]
        tl.store(dx + where, out, mask=inside)
    own = sums + program * C + cols
    tl.store(own, tl.sum(dweight, axis=0), mask=cols < C)
    tl.store(own + programs * C, tl.sum(dbias, axis=0), mask=cols < C)
