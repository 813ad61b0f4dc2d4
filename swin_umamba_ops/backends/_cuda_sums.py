"""What a backward pass of the CUDA kernels sums in: float32, cleared and cast in one launch each.

A launch for each tensor would take longer than the scan of a small image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._device import current

_MOST_ROWS = 256  # added one after the other: rounding grows with them
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # DType in csrc/cuda/params.h


def totals(*wanted: tuple[Tensor, torch.dtype]) -> list[Tensor]:
    """Sums over the first axis of float32 tensors, in a fixed order, each in the dtype wanted."""
    made, parts = [], []
    for rows, dtype in wanted:
        if len(rows) == 1 and dtype == torch.float32:
            made.append(rows[0])
            continue
        if not 1 <= len(rows) <= _MOST_ROWS:
            made.append(rows.sum(0).to(dtype))
            continue
        total = rows.new_empty(rows.shape[1:], dtype=dtype)
        made.append(total)
        count = total.numel()
        parts.append((rows.data_ptr(), total.data_ptr(), count, count, len(rows), DTYPES[dtype]))
    device = wanted[0][0].device
    if parts:
        with current(device):
            stream = torch._C._cuda_getCurrentRawStream(device.index)
            _extension.module().cuda.launch_totals(parts, stream)
    return made


def zeros(like: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    """float32 zeros beside `like`, to sum in.

    They share one piece of memory, but where `like` is float32: there they are results themselves.
    """
    if like.dtype == torch.float32:
        return [like.new_zeros(shape) for shape in shapes]
    starts = [0]
    for shape in shapes:
        starts.append(starts[-1] + (math.prod(shape) + 3) // 4 * 4)  # 16 bytes, for vectors
    whole = like.new_zeros(starts[-1], dtype=torch.float32)
    return [
        whole[start : start + math.prod(shape)].view(shape)
        for start, shape in zip(starts, shapes, strict=False)
    ]
