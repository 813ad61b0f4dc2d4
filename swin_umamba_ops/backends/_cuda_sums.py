"""What a backward pass of the CUDA kernels sums in: float32, cleared and cast in one launch each.

A launch for each result would take longer than the scan of a small image, and a tensor for each
piece of memory takes as long: the kernels get addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._device import current

_MOST_ROWS = 256  # added one after the other: rounding grows with them
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # DType in csrc/cuda/params.h


class Sums:
    """Addresses where kernels find the rows, in float32, of which results are the sums.

    One row of a float32 result is the result itself; all others share a piece of memory, until
    finish() makes the results of them.
    """

    def __init__(self, cleared: bool, *wanted: tuple[Tensor, int]) -> None:
        """`wanted`: each result and its number of rows; `cleared` for kernels that add to them."""
        sizes = [
            # 16 bytes, for vectors.
            0 if rows == 1 and result.dtype == torch.float32 else (rows * result.numel() + 3) & ~3
            for result, rows in wanted
        ]
        like = wanted[0][0]
        make = like.new_zeros if cleared else like.new_empty
        self._memory = make(sum(sizes), dtype=torch.float32)
        self._apart: list[tuple[int, Tensor, int]] = []
        self.addresses: list[int] = []
        start = self._memory.data_ptr()
        for (result, rows), size in zip(wanted, sizes, strict=True):
            if size == 0:
                self.addresses.append((result.zero_() if cleared else result).data_ptr())
            else:
                self.addresses.append(start)
                self._apart.append((start, result, rows))
                start += 4 * size

    def parts(self) -> list[tuple[int, int, int, int, int]]:
        """What launch_totals() in csrc/bindings.cpp is to make."""
        parts = []
        for start, result, rows in self._apart:
            count = result.numel()
            if rows <= _MOST_ROWS:
                parts.append((start, result.data_ptr(), count, rows, DTYPES[result.dtype]))
            else:
                first = (start - self._memory.data_ptr()) // 4
                summands = self._memory[first : first + rows * count].view(rows, *result.shape)
                result.copy_(summands.sum(0))
        return parts


def finish(device: torch.device, *sums: Sums) -> None:
    """Add up all rows, in a fixed order, and bring the sums to their results' dtypes."""
    parts = [part for each in sums for part in each.parts()]
    if parts:
        with current(device):
            stream = torch._C._cuda_getCurrentRawStream(device.index)
            _extension.module().cuda.launch_totals(parts, stream)
