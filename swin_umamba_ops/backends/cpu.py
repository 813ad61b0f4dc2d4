"""The CPU kernels of csrc/cpu: allocation, and the fields of their structs (csrc/cpu/params.h).

Vectorized over channels for the fastest instruction set of the machine, and split over as many
threads as torch uses. 16-bit inputs are read directly; states, sums and gradients are float32
(float64 for float64 inputs). Results are bitwise reproducible and do not depend on the number of
threads.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends.protocols import Gradients
from swin_umamba_ops.inputs import (
    ALL_SCAN,
    ALL_SS2D,
    ScanInputs,
    ScanWanted,
    SS2DInputs,
    SS2DWanted,
)
from swin_umamba_ops.numerics import FLOAT_DTYPES, as_dtype, state_dtype
from swin_umamba_ops.scan_order import DIRECTIONS

# Steps between two saved states. Repeated here since fake kernels need it without the module.
chunk_length = 64

_compiled = _extension.part("cpu")
_STORAGE: dict[torch.dtype, int] = {}
if _compiled is not None:
    assert chunk_length == _compiled.CHUNK_LENGTH
    assert _compiled.DIRECTIONS == DIRECTIONS
    _STORAGE = {
        torch.bfloat16: int(_compiled.Storage.BFLOAT16),
        torch.float16: int(_compiled.Storage.FLOAT16),
    }


@functools.cache
def why_unusable() -> str | None:
    module, reason = _extension.load()
    if module is None:
        return reason
    return None if hasattr(module, "cpu") else _extension.why_without("cpu")


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type != "cpu":
        return f"it supports CPU tensors, not {device.type}"
    return None if dtype in FLOAT_DTYPES else f"it supports floating dtypes, not {dtype}"


def _run(op: str, like: Tensor, sizes: dict[str, int], tensors: dict[str, Tensor | None]) -> None:
    """An op of csrc/cpu/cpu.h with the fields of its struct; `like`: an input with the dtype of all
    large ones."""
    function: Any = getattr(_extension.module().cpu, op)
    function(
        like.dtype == torch.float64,
        torch.get_num_threads(),
        storage=_STORAGE.get(like.dtype, 0),
        **sizes,
        **{name: 0 if t is None else t.data_ptr() for name, t in tensors.items()},
    )


def _like(gradients: Gradients, inputs: tuple[Tensor | None, ...]) -> Gradients:
    """The gradients in the dtypes of their inputs."""
    return tuple(
        [
            g if g is None or t is None else as_dtype(g, t.dtype)
            for g, t in zip(gradients, inputs, strict=True)
        ]
    )


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    return N, R


def ss2d_forward(inputs: SS2DInputs, out_dtype: torch.dtype, save: bool) -> tuple[Tensor, Tensor]:
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see ops/ss2d.py."""
    x, proj, *parameters = inputs
    B, H, W, D = x.shape
    N, R = inputs.A_logs.shape[1], inputs.dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    parameters = [as_dtype(t, accumulate) for t in parameters]
    y = torch.empty_like(x, dtype=accumulate)
    chunks = -(-H * W // chunk_length)
    states = x.new_empty((B, DIRECTIONS, chunks, D, N) if save else (0,), dtype=accumulate)
    dt_weight, dt_bias, A_logs, Ds = parameters
    _run(
        "ss2d_forward", x, {"B": B, "D": D, "H": H, "W": W, "N": N, "R": R},
        {
            "x": x, "proj": proj, "dt_weight": dt_weight, "dt_bias": dt_bias, "A_logs": A_logs,
            "Ds": Ds, "y": y, "states": states if save else None,
        },
    )  # fmt: skip
    return as_dtype(y, out_dtype), states


def ss2d_backward(
    dy: Tensor, inputs: SS2DInputs, states: Tensor, wanted: SS2DWanted = ALL_SS2D
) -> Gradients:
    """The gradients of the six inputs, each like its input."""
    x, proj, *parameters = inputs
    B, H, W, D = x.shape
    N, R = inputs.A_logs.shape[1], inputs.dt_projs_weight.shape[2]
    accumulate = state_dtype(x.dtype)
    dy, *parameters = (as_dtype(t, accumulate) for t in (dy, *parameters))
    dx, dproj = (torch.zeros_like(t, dtype=accumulate) for t in (x, proj))
    # One row per image, summed here: images go to different threads.
    rows = [t.new_zeros((B, *t.shape)) for t in parameters]
    dt_weight, dt_bias, A_logs, Ds = parameters
    _run(
        "ss2d_backward", x, {"B": B, "D": D, "H": H, "W": W, "N": N, "R": R},
        {
            "x": x, "proj": proj, "dt_weight": dt_weight, "dt_bias": dt_bias, "A_logs": A_logs,
            "Ds": Ds, "states": states, "dy": dy, "dx": dx, "dproj": dproj,
            "ddt_weight": rows[0], "ddt_bias": rows[1], "dA_logs": rows[2], "dDs": rows[3],
        },
    )  # fmt: skip
    sums = [t.sum(0) if w else None for t, w in zip(rows, wanted[2:], strict=True)]
    return _like((dx, dproj, *sums), inputs)


def selective_scan_forward(
    inputs: ScanInputs, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    u, delta, A, Bs, Cs, Ds, delta_bias, softplus = inputs
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    accumulate = state_dtype(u.dtype)
    out = torch.empty_like(u, dtype=accumulate)
    last = u.new_empty((B, D, N), dtype=accumulate)
    shape = (B, -(-L // chunk_length), D, N) if save else (0,)
    states = u.new_empty(shape, dtype=accumulate)
    _run(
        "scan_forward", u, {"B": B, "G": G, "D": D, "L": L, "N": N, "softplus": softplus},
        {
            "u": u, "delta": delta, "A": A, "Bs": Bs, "Cs": Cs, "Ds": Ds, "bias": delta_bias,
            "out": out, "last": last, "states": states if save else None,
        },
    )  # fmt: skip
    return as_dtype(out, out_dtype), last, states


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    wanted: ScanWanted = ALL_SCAN,
) -> Gradients:
    """The gradients of the seven tensors, each like its input."""
    u, delta, A, Bs, Cs, Ds, delta_bias, softplus = inputs
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    accumulate = state_dtype(u.dtype)
    dout = as_dtype(dout, accumulate)
    du, ddelta, dBs, dCs = (torch.empty_like(t, dtype=accumulate) for t in (u, delta, Bs, Cs))
    # One row per image, summed below: images go to different threads.
    dA, dDs, dbias = (A.new_zeros(B, *shape) for shape in ((D, N), (D,), (D,)))
    _run(
        "scan_backward", u, {"B": B, "G": G, "D": D, "L": L, "N": N, "softplus": softplus},
        {
            "u": u, "delta": delta, "A": A, "Bs": Bs, "Cs": Cs, "Ds": Ds, "bias": delta_bias,
            "states": states, "dout": dout, "dlast": dlast, "du": du, "ddelta": ddelta, "dA": dA,
            "dBs": dBs, "dCs": dCs, "dDs": dDs, "dbias": dbias,
        },
    )  # fmt: skip
    sums = (
        dA.sum(0) if wanted.A else None,
        dDs.sum(0) if wanted.Ds and Ds is not None else None,
        dbias.sum(0) if wanted.delta_bias and delta_bias is not None else None,
    )
    return _like((du, ddelta, sums[0], dBs, dCs, *sums[1:]), inputs.tensors)
