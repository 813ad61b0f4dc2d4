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
    """Addresses, by name, where kernels find the rows of which results are the sums.

    Rows are float32. One row of a float32 result is the result itself; all others share a piece of
    memory, until finish() makes the results of them.
    """

    def __init__(self, *, cleared: bool, **wanted: tuple[Tensor, int]) -> None:
        """`wanted`: each result and its number of rows; `cleared` for kernels that add to them."""
        self.addresses: dict[str, int] = {}
        self._apart: list[tuple[str, Tensor, int]] = []
        size = 0
        for name, (result, rows) in wanted.items():
            if rows > 1 or result.dtype != torch.float32:
                self._apart.append((name, result, rows))
                self.addresses[name] = 4 * size
                size += (rows * result.numel() + 3) // 4 * 4  # 16 bytes, for vectors
            else:
                self.addresses[name] = (result.zero_() if cleared else result).data_ptr()
        if self._apart:
            like = self._apart[0][1]
            make = like.new_zeros if cleared else like.new_empty
            self._memory = make(size, dtype=torch.float32)
            start = self._memory.data_ptr()
            for name, _, _ in self._apart:
                self.addresses[name] += start

    def parts(self) -> list[tuple[int, int, int, int, int, int]]:
        """What launch_totals() is to make: see Total in csrc/cuda/params.h."""
        parts = []
        for name, result, rows in self._apart:
            count = result.numel()
            if rows <= _MOST_ROWS:
                addresses = (self.addresses[name], result.data_ptr())
                parts.append((*addresses, count, count, rows, DTYPES[result.dtype]))
            else:
                start = (self.addresses[name] - self._memory.data_ptr()) // 4
                summands = self._memory[start : start + rows * count].view(rows, *result.shape)
                result.copy_(summands.sum(0))
        return parts


def finish(device: torch.device, *sums: Sums) -> None:
    """Add up all rows, in a fixed order, and bring the sums to their results' dtypes."""
    parts = [part for each in sums for part in each.parts()]
    if parts:
        with current(device):
            stream = torch._C._cuda_getCurrentRawStream(device.index)
            _extension.module().cuda.launch_totals(parts, stream)
