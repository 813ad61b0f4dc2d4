"""The gradient reduction of the CUDA kernels: float32 sums, cleared and cast in one launch each.

A launch per result would take longer than the scan of a small image, and a tensor per piece of
memory takes as long; so the kernels get addresses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba_ops.backends._cuda_launch import DTYPES, compiled
from swin_umamba_ops.backends._device import current
from swin_umamba_ops.torch_private import raw_stream

_MAX_ROWS = 256  # rows are added sequentially: rounding grows with their number


class GradientReduction:
    """Addresses of float32 rows that kernels add to, and whose sums are the gradients.

    All rows share one allocation, cleared in one launch; finish() computes the gradients in
    another. Only large float32 gradients are added to directly. Kernels scale what they add to the
    rows of small gradients by SUM_SCALE.
    """

    def __init__(self, large: tuple[Tensor, ...], small: tuple[Tensor, ...], rows: int) -> None:
        """`large`: gradients of one row; `small`: gradients of `rows` rows."""
        wanted = [(result, 1) for result in large] + [(result, rows) for result in small]
        sizes = [
            # 16 bytes, for vectors.
            0 if i < len(large) and result.dtype == torch.float32 else (n * result.numel() + 3) & ~3
            for i, (result, n) in enumerate(wanted)
        ]
        self._memory = wanted[0][0].new_zeros(sum(sizes), dtype=torch.float32)
        self._parts: list[tuple[int, Tensor, int, bool]] = []
        self.addresses: list[int] = []
        start = self._memory.data_ptr()
        for i, (result, n) in enumerate(wanted):
            if sizes[i] == 0:
                self.addresses.append(result.zero_().data_ptr())
            else:
                self.addresses.append(start)
                self._parts.append((start, result, n, i >= len(large)))
                start += 4 * sizes[i]

    def finish(self) -> None:
        """Add all rows, in a fixed order, and cast the sums to the dtypes of their gradients."""
        if not self._parts:
            return
        reductions = compiled().Reductions()
        for start, result, rows, is_scaled in self._parts:
            count, scale = result.numel(), 1.0 / compiled().SUM_SCALE if is_scaled else 1.0
            if rows <= _MAX_ROWS:
                reductions.add(start, result.data_ptr(), count, rows, DTYPES[result.dtype], scale)
            else:
                first = (start - self._memory.data_ptr()) // 4
                summands = self._memory[first : first + rows * count].view(rows, *result.shape)
                result.copy_(scale * summands.sum(0))
        device = self._memory.device
        with current(device):
            reductions.launch(raw_stream(device))
