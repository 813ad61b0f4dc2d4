"""Process an image's probabilities in bands of rows, and restore what was cropped off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.prepare.placement import Placement

HELD_VALUES = 1 << 22  # bytes of a band outside of the crop


@dataclass(frozen=True)
class Band:
    """Results for N slices from `first` on, in their rows from `row` on.

    values: probabilities (N, K, rows, W) float32, or class indices (N, rows, W).
    """

    first: int
    row: int
    values: npt.NDArray[Any]

    def of(self, slices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part (N, ..., rows, W) of an array (Z, ..., H, W) that the band covers."""
        count, rows = self.values.shape[0], self.values.shape[-2]
        return slices[self.first : self.first + count, ..., self.row : self.row + rows, :]


class Frame:
    """Places bands of the cropped part into the whole image.

    placement: of the slices; outside: the probabilities (K,) of cropped-off pixels.
    """

    def __init__(self, placement: Placement, outside: npt.NDArray[np.float32]) -> None:
        self.placement, self.outside = placement, outside

    def around(self, band: Band) -> Band:
        """The band extended to the full width of the image."""
        if self.placement.whole:
            return band
        z, y, x = self.placement.part
        count, _, rows, _ = band.values.shape
        values = self._empty(count, rows)
        values[..., x] = band.values
        return Band(z.start + band.first, y.start + band.row, values)

    def rest(self) -> Iterator[Band]:
        """Bands for rows and slices of the image that were cropped off entirely."""
        if self.placement.whole:
            return
        depth, height, width = self.placement.full
        z, y, _ = self.placement.part
        at_once = max(HELD_VALUES // (len(self.outside) * width), 1)
        for index in range(depth):
            kept = range(y.start, y.stop) if z.start <= index < z.stop else range(height, height)
            for first, end in ((0, kept.start), (kept.stop, height)):
                for row in range(first, end, at_once):
                    yield Band(index, row, self._empty(1, min(end - row, at_once)))

    def _empty(self, count: int, rows: int) -> npt.NDArray[np.float32]:
        values = np.empty((count, len(self.outside), rows, self.placement.full[2]), np.float32)
        values[...] = self.outside[:, None, None]
        return values
