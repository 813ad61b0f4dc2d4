"""The sums of a segmentation loss by Triton: the logits are read once forward and once backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._memory import addressable_image
from swin_umamba_ops.backends._triton_fused import (
    on_its_device,
    processors,
    why_unusable,
)
from swin_umamba_ops.backends._triton_fused import why_unsupported as _why_unsupported
from swin_umamba_ops.backends.protocols import ALL_WANTED, Gradients
from swin_umamba_ops.backends.triton_kernels import segmentation as kernels
from swin_umamba_ops.inputs import SegmentationSumsInputs

__all__ = [
    "segmentation_sums_backward",
    "segmentation_sums_forward",
    "why_unsupported",
    "why_unusable",
]

_TILE = 2048  # values held by a program: 16 per thread
_MAX_CLASSES = 256
_PROGRAMS_PER_PROCESSOR = 8


def why_unsupported(device: torch.device, dtype: torch.dtype, size: int) -> str | None:
    """None if the kernels support such logits, else the reason. size: number of classes."""
    if size > _MAX_CLASSES:
        return f"it supports up to {_MAX_CLASSES} classes, not {size}"
    return _why_unsupported(device, dtype, 0)


class _Cut:
    """The partition of logits (B, C, H, W) into programs, and the corresponding arguments."""

    def __init__(self, logits: Tensor) -> None:
        B, C, H, W = logits.shape
        L = H * W
        columns = max(2, 1 << (C - 1).bit_length())
        pixels = _TILE // columns
        wanted = -(-_PROGRAMS_PER_PROCESSOR * processors(logits.device) // B)
        all_blocks = -(-L // pixels)
        blocks = -(-all_blocks // min(wanted, all_blocks))
        self.chunks = -(-all_blocks // blocks)
        self.grid = (self.chunks, B)
        strides = (C * L, L, 1) if logits.is_contiguous() else (C * L, 1, C)
        self.sizes = (L, C, *strides, self.chunks, blocks)
        self.tile = {"PIXELS": pixels, "COLS": columns}


@on_its_device
def segmentation_sums_forward(inputs: SegmentationSumsInputs) -> Tensor:
    logits, target = addressable_image(inputs.logits), inputs.target
    cut = _Cut(logits)
    shape = (logits.shape[0], cut.chunks, 2 * logits.shape[1])
    sums = logits.new_empty(shape, dtype=torch.float32)
    launch(kernels.forward, cut.grid, (logits, target, sums, *cut.sizes), cut.tile)
    return sums.sum(1)


@on_its_device
def segmentation_sums_backward(
    dsums: Tensor, inputs: SegmentationSumsInputs, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    logits, target = addressable_image(inputs.logits), inputs.target
    cut = _Cut(logits)
    dlogits = torch.empty_like(logits)
    launch(kernels.backward, cut.grid, (dsums, logits, target, dlogits, *cut.sizes), cut.tile)
    return dlogits, None
