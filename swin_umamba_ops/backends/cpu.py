"""The CPU kernels of csrc/cpu: allocation, and sizes and addresses for the compiled module.

Vectorised over channels for the fastest instruction set of the machine, and split over as many
threads as torch uses. Half inputs are read as they are; states, sums and gradients are float32
(float64 for float64 inputs). Results repeat bitwise and do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends.protocols import ALL_WANTED
from swin_umamba_ops.numerics import FLOAT_DTYPES, state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS

chunk_length = 64  # kChunk in csrc/cpu/params.h


@functools.cache
def why_unusable() -> str | None:
    module, reason = _extension.load()
    if module is None:
        return reason
    return None if hasattr(module, "cpu") else _extension.why_without("cpu")


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type != "cpu":
        return f"it serves CPU tensors, not {device.type}"
    return None if dtype in FLOAT_DTYPES else f"it serves floating dtypes, not {dtype}"


def _cpu() -> Any:
    return _extension.module().cpu


# Storage in csrc/cpu/params.h.
_STORAGE = {torch.bfloat16: 1, torch.float16: 2}


def _storage(dtype: torch.dtype) -> int:
    return _STORAGE.get(dtype, 0)


def _addresses(*tensors: Tensor | None) -> list[int]:
    return [0 if t is None else t.data_ptr() for t in tensors]


def _like(gradients: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [g.to(t.dtype) for g, t in zip(gradients, inputs, strict=True)]


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    return N, R


def ss2d_forward(
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see ops/ss2d.py."""
    B, H, W, D = x.shape
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    parameters = [t.to(accumulate) for t in (dt_projs_weight, dt_projs_bias, A_logs, Ds)]
    y = torch.empty_like(x, dtype=accumulate)
    chunks = -(-H * W // chunk_length)
    states = x.new_empty((B, DIRECTIONS, chunks, D, N) if save else (0,), dtype=accumulate)
    _cpu().ss2d_forward(
        accumulate == torch.float64,
        (B, D, H, W, N, R, _storage(x.dtype)),
        _addresses(x, proj, *parameters, y, states if save else None),
        torch.get_num_threads(),
    )
    return y.to(out_dtype), states


def ss2d_backward(
    dy: Tensor,
    x: Tensor,
    proj: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
    wanted: Sequence[bool] = ALL_WANTED,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the six inputs from x to Ds, each like its input; a parameter's that is not
    wanted is left in one row for each image."""
    B, H, W, D = x.shape
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    given = (x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    dy, *parameters = (t.to(accumulate) for t in (dy, *given[2:]))
    dx, dproj = (torch.zeros_like(t, dtype=accumulate) for t in (x, proj))
    # One row for each image, summed here: images go to different threads.
    rows = [t.new_zeros((B, *t.shape), dtype=accumulate) for t in given[2:]]
    _cpu().ss2d_backward(
        accumulate == torch.float64,
        (B, D, H, W, N, R, _storage(x.dtype)),
        _addresses(dy, x, proj, *parameters, states, dx, dproj, *rows),
        torch.get_num_threads(),
    )
    sums = (t.sum(0) if w else t for t, w in zip(rows, wanted[2:6], strict=True))
    dx, dproj, dweight, dbias, dA_logs, dDs = _like((dx, dproj, *sums), given)
    return dx, dproj, dweight, dbias, dA_logs, dDs


def selective_scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    out_dtype: torch.dtype,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    accumulate = state_dtype(u.dtype)
    out = torch.empty_like(u, dtype=accumulate)
    last = u.new_empty((B, D, N), dtype=accumulate)
    shape = (B, -(-L // chunk_length), D, N) if save else (0,)
    states = u.new_empty(shape, dtype=accumulate)
    _cpu().scan_forward(
        accumulate == torch.float64,
        (B, G, D, L, N, _storage(u.dtype)),
        delta_softplus,
        _addresses(u, delta, A, Bs, Cs, Ds, delta_bias, out, last, states if save else None),
        torch.get_num_threads(),
    )
    return out.to(out_dtype), last, states


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
    wanted: Sequence[bool] = ALL_WANTED,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of u, delta, A, Bs, Cs, Ds and delta_bias, each like its input.

    Those of a Ds or delta_bias that is absent or not wanted are empty.
    """
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    accumulate = state_dtype(u.dtype)
    given = (u, delta, A, Bs, Cs)
    dout = dout.to(accumulate)
    du, ddelta, dBs, dCs = (torch.empty_like(t, dtype=accumulate) for t in (u, delta, Bs, Cs))
    # One row for each image, summed below: images go to different threads.
    dA, dDs, dbias = (A.new_zeros(B, *shape) for shape in ((D, N), (D,), (D,)))
    _cpu().scan_backward(
        accumulate == torch.float64,
        (B, G, D, L, N, _storage(u.dtype)),
        delta_softplus,
        _addresses(dout, dlast, *given, Ds, delta_bias, states)
        + _addresses(du, ddelta, dA, dBs, dCs, dDs, dbias),
        torch.get_num_threads(),
    )
    du, ddelta, dA, dBs, dCs = _like((du, ddelta, dA.sum(0), dBs, dCs), given)
    return (
        du,
        ddelta,
        dA,
        dBs,
        dCs,
        A.new_empty(0) if Ds is None or not wanted[5] else dDs.sum(0),
        A.new_empty(0) if delta_bias is None or not wanted[6] else dbias.sum(0),
    )
