"""What a backward pass of the CUDA kernels sums in: float32, cleared and cast in one launch each.

A launch for each result would take longer than the scan of a small image, and a tensor for each
piece of memory takes as long: the kernels get addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._device import current
from swin_umamba_ops.torch_private import raw_stream

_MOST_ROWS = 256  # added one after the other: rounding grows with them
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # DType in csrc/cuda/params.h


class Sums:
    """Addresses where kernels add to rows, in float32, of which results are the sums.

    All rows share a piece of memory, cleared in one launch, until finish() makes the results of
    them in another. Only large results in float32 are their own one row. Kernels add to the rows
    of small ones what they have times kSumScale of csrc/cuda/params.h.
    """

    def __init__(self, large: tuple[Tensor, ...], small: tuple[Tensor, ...], rows: int) -> None:
        """`large`: results of one row; `small`: results of `rows` rows."""
        wanted = [(result, 1) for result in large] + [(result, rows) for result in small]
        sizes = [
            # 16 bytes, for vectors.
            0 if i < len(large) and result.dtype == torch.float32 else (n * result.numel() + 3) & ~3
            for i, (result, n) in enumerate(wanted)
        ]
        self._memory = wanted[0][0].new_zeros(sum(sizes), dtype=torch.float32)
        self._apart: list[tuple[int, Tensor, int, bool]] = []
        self.addresses: list[int] = []
        start = self._memory.data_ptr()
        for i, (result, n) in enumerate(wanted):
            if sizes[i] == 0:
                self.addresses.append(result.zero_().data_ptr())
            else:
                self.addresses.append(start)
                self._apart.append((start, result, n, i >= len(large)))
                start += 4 * sizes[i]

    def finish(self) -> None:
        """Add up all rows, in a fixed order, and bring the sums to their results' dtypes."""
        cuda = _extension.module().cuda
        parts = []
        for start, result, rows, is_scaled in self._apart:
            count, scale = result.numel(), 1.0 / cuda.sum_scale if is_scaled else 1.0
            if rows <= _MOST_ROWS:
                parts.append((start, result.data_ptr(), count, rows, DTYPES[result.dtype], scale))
            else:
                first = (start - self._memory.data_ptr()) // 4
                summands = self._memory[first : first + rows * count].view(rows, *result.shape)
                result.copy_(scale * summands.sum(0))
        if parts:
            device = self._memory.device
            with current(device):
                cuda.launch_totals(parts, raw_stream(device))
