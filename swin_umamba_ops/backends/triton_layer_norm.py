"""Layer norm with optional gate by Triton: LayerNorm(x) * silu(gate) in one pass over memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._memory import addressable_rows
from swin_umamba_ops.backends._triton_fused import (
    on_its_device,
    processors,
    why_unsupported,
    why_unusable,
)
from swin_umamba_ops.backends.protocols import ALL_WANTED, Gradients
from swin_umamba_ops.backends.triton_kernels import layer_norm as kernels
from swin_umamba_ops.inputs import LayerNormInputs

__all__ = ["layer_norm_backward", "layer_norm_forward", "why_unsupported", "why_unusable"]

_TILE = 2048  # values held by a program: 16 per thread
_PROGRAMS_PER_PROCESSOR = 4
_STAGES = 3  # loop iterations whose loads are in flight


def _tile(channels: int) -> tuple[int, int]:
    """Rows and columns per program."""
    columns = 1 << (channels - 1).bit_length()
    return max(1, _TILE // columns), columns


@on_its_device
def layer_norm_forward(inputs: LayerNormInputs) -> Tensor:
    x, gate, weight, bias, eps, out_dtype = inputs
    y = torch.empty_like(x, dtype=out_dtype)
    C = x.shape[-1]
    M = x.numel() // C
    rows, columns = _tile(C)
    gate, gate_stride = (None, C) if gate is None else addressable_rows(gate)
    launch(
        kernels.forward, ((M + rows - 1) // rows,),
        (x, gate, gate_stride, weight, bias, y, M, C, eps),
        {"GATED": gate is not None, "ROWS": rows, "COLS": columns},
    )  # fmt: skip
    return y


@on_its_device
def layer_norm_backward(
    dy: Tensor, inputs: LayerNormInputs, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    x, gate, weight, bias, eps, _ = inputs
    dx, dgate = torch.empty_like(x), None if gate is None else gate.new_empty(gate.shape)
    C = x.shape[-1]
    M = x.numel() // C
    rows, columns = _tile(C)
    programs = min((M + rows - 1) // rows, _PROGRAMS_PER_PROCESSOR * processors(x.device))
    sums = x.new_empty((2, programs, C), dtype=torch.float32)
    gate, gate_stride = (None, C) if gate is None else addressable_rows(gate)
    launch(
        kernels.backward, (programs,),
        (dy, x, gate, gate_stride, weight, bias, dx, dgate, sums, M, C, eps, programs),
        {"GATED": gate is not None, "ROWS": rows, "COLS": columns, "STAGES": _STAGES},
    )  # fmt: skip
    if not (wanted[2] or wanted[3]):
        return dx, dgate, None, None
    dweight, dbias = sums.sum(1).unbind()
    return dx, dgate, dweight.to(weight.dtype), dbias.clone().to(bias.dtype)
