"""The network's input slices, row by row: an image need not be in memory as floats."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from swin_umamba.data.prepare.normalization import Normalization

Floats = npt.NDArray[np.float32]


class Slices(Protocol):
    """Slices (N, C, H, W) of one image, float32, computed on request."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    def part(self, first: int, last: int) -> Slices:
        """The slices from `first` to before `last`."""
        ...

    def fill(self, out: Floats, row: int) -> None:
        """Write as many rows as `out` (N, C, rows, W) has, from `row` on."""
        ...


class ArraySlices:
    """Slices that are in memory."""

    def __init__(self, array: Floats) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, channels, height, width = self.array.shape
        return count, channels, height, width

    def part(self, first: int, last: int) -> ArraySlices:
        return ArraySlices(self.array[first:last])

    def fill(self, out: Floats, row: int) -> None:
        out[...] = self.array[:, :, row : row + out.shape[2]]


class NormalizedSlices:
    """Slices along an axis of an image's arrays (Z, H, W), normalized on request."""

    def __init__(
        self, normalization: Normalization, axis: int, only: tuple[int, int] | None = None
    ) -> None:
        self.normalization, self.axis = normalization, axis
        all_of_them: tuple[int, int] = (0, normalization.pixels.shape[axis + 1])
        self.first, self.last = all_of_them if only is None else only

    @property
    def shape(self) -> tuple[int, int, int, int]:
        channels, *sizes = self.normalization.pixels.shape
        height, width = (size for i, size in enumerate(sizes) if i != self.axis)
        return self.last - self.first, channels, height, width

    def part(self, first: int, last: int) -> NormalizedSlices:
        own = self.first + first, min(self.first + last, self.last)
        return NormalizedSlices(self.normalization, self.axis, own)

    def fill(self, out: Floats, row: int) -> None:
        part = [slice(row, row + out.shape[2]), slice(None)]
        part.insert(self.axis, slice(self.first, self.last))
        self.normalization.fill(np.moveaxis(out, 0, self.axis + 1), (part[0], part[1], part[2]))
