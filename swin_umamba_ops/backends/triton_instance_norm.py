"""Instance norm, residual and leaky ReLU by Triton: two passes over memory, channels last."""

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
from swin_umamba_ops.backends.triton_kernels import instance_norm as kernels
from swin_umamba_ops.inputs import InstanceNormActInputs
from swin_umamba_ops.numerics import NO_RESIDUAL, NORMALISED_RESIDUAL

__all__ = [
    "gradient_in_place",
    "instance_norm_act_backward",
    "instance_norm_act_forward",
    "normalise",
    "why_unsupported",
    "why_unusable",
]

_TILE = 2048  # values held by a program at a time
_MAX_BLOCK_C = 128
_STAGES = 3  # loop iterations whose loads are in flight
_MAX_CHUNKS = 64  # a program adds the sums of all chunks of its image
# By the maps that a program reads: few programs, so that all run at once. docs/kernels.md.
_PROGRAMS_PER_PROCESSOR, _PROGRAMS_OF_THREE_MAPS = 4, 8


class _Cut:
    """The partition of an op on x (B, H, W, C) into programs, and the corresponding arguments."""

    def __init__(self, x: Tensor, programs: int = _PROGRAMS_PER_PROCESSOR) -> None:
        self.B, H, W, self.C = x.shape
        L = H * W
        block_c = min(_MAX_BLOCK_C, 1 << (self.C - 1).bit_length())
        rows = _TILE // block_c
        blocks = -(-self.C // block_c)
        wanted = -(-programs * processors(x.device) // (self.B * blocks))
        chunks = max(1, min(_MAX_CHUNKS, wanted, -(-L // rows)))
        length = -(-L // chunks)
        self.chunks = -(-L // length)
        self.grid = (self.chunks, self.B, blocks)
        self.sizes = (L, self.C, self.chunks, length, self.B * self.chunks * self.C)
        self.tile = {"ROWS": rows, "BLOCK_C": block_c, "STAGES": _STAGES}
        # The same for all images: each value would compile another kernel.
        self.whole = {**self.tile, "CHUNKS": _MAX_CHUNKS}

    def sums(self, x: Tensor, kinds: int) -> Tensor:
        return x.new_empty((kinds, self.B, self.chunks, self.C), dtype=torch.float32)


@on_its_device
def normalise(x: Tensor, stats: Tensor, slope: float) -> Tensor:
    """Recompute leaky_relu(InstanceNorm(x), slope) of x (B, H, W, C) from its statistics."""
    y = torch.empty_like(x)
    cut = _Cut(x)
    launch(
        kernels.apply, cut.grid,
        (x, stats, None, None, None, stats, y, stats, *cut.sizes, 0.0, slope),
        {"AFFINE": False, "RESIDUAL": NO_RESIDUAL, "KNOWN": True, **cut.whole},
    )  # fmt: skip
    return y


@on_its_device
def instance_norm_act_forward(inputs: InstanceNormActInputs) -> tuple[Tensor, Tensor]:
    x, weight, bias, residual, kind, eps, slope = inputs
    y = torch.empty_like(x)
    rows = 4 if kind == NORMALISED_RESIDUAL else 2
    stats = x.new_empty((rows, x.shape[0], x.shape[3]), dtype=torch.float32)
    cut = _Cut(x)
    sums = cut.sums(x, 2)
    launch(kernels.moments, cut.grid, (x, sums, *cut.sizes), cut.tile)
    residual_sums = sums
    if kind == NORMALISED_RESIDUAL:
        residual_sums = cut.sums(x, 2)
        launch(kernels.moments, cut.grid, (residual, residual_sums, *cut.sizes), cut.tile)
    launch(
        kernels.apply, cut.grid,
        (x, sums, weight, bias, residual, residual_sums, y, stats, *cut.sizes, eps, slope),
        {"AFFINE": weight is not None, "RESIDUAL": kind, "KNOWN": False, **cut.whole},
    )  # fmt: skip
    return y, stats


@on_its_device
def instance_norm_act_backward(
    dy: Tensor,
    inputs: InstanceNormActInputs,
    stats: Tensor,
    wanted: Sequence[bool] = ALL_WANTED,
) -> Gradients:
    return _backward(dy, inputs, stats, wanted, torch.empty_like(inputs.x))


@on_its_device
def gradient_in_place(dy: Tensor, x: Tensor, stats: Tensor, slope: float) -> Tensor:
    """The gradient of leaky_relu(InstanceNorm(x), slope) by x (B, H, W, C), written over dy, which
    is contiguous: each value is read before it is overwritten, by the same program."""
    inputs = InstanceNormActInputs(x, None, None, None, NO_RESIDUAL, 0.0, slope)
    return _backward(dy, inputs, stats, ALL_WANTED, dx=dy)[0]


def _backward(
    dy: Tensor, inputs: InstanceNormActInputs, stats: Tensor, wanted: Sequence[bool], dx: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients, with that of x in the memory of dx."""
    x, weight, bias, residual, kind, _, slope = inputs
    dweight, dbias = None, None
    dresidual = None if residual is None else torch.empty_like(residual)
    dy, dy_stride = addressable_rows(dy)
    three = kind == NORMALISED_RESIDUAL
    cut = _Cut(x, _PROGRAMS_OF_THREE_MAPS if three else _PROGRAMS_PER_PROCESSOR)
    sums = cut.sums(x, 3)
    options = {"AFFINE": weight is not None, "RESIDUAL": kind}
    launch(
        kernels.gradient_sums, cut.grid,
        (dy, dy_stride, x, weight, bias, residual, stats, sums, *cut.sizes, slope),
        {**options, **cut.tile},
    )  # fmt: skip
    launch(
        kernels.gradient, cut.grid,
        (dy, dy_stride, x, weight, bias, residual, stats, sums, dx, dresidual, *cut.sizes, slope),
        {**options, **cut.whole},
    )  # fmt: skip
    if weight is not None and bias is not None and (wanted[1] or wanted[2]):
        total = sums[:2].sum((1, 2))
        dbias, dweight = total[0].to(bias.dtype).clone(), total[1].to(weight.dtype).clone()
    return dx, dweight, dbias, dresidual
