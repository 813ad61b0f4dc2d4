"""The position of the network's slices within their image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.prepare.cropping import Box


@dataclass(frozen=True)
class Placement:
    """Slices of one image: cropped, then resampled in-plane.

    shape: of the image's arrays (Z, H, W); axis: the slicing axis; box: the cropped part, in the
    same order; size: (height, width) of the slices after resampling.
    """

    shape: tuple[int, int, int]
    axis: int
    box: Box
    size: tuple[int, int]

    @property
    def full(self) -> tuple[int, int, int]:
        """The whole image as slices: their number, height and width."""
        return self._in_order(self.shape)

    @property
    def part(self) -> Box:
        """The cropped part, in the order of `full`."""
        return self._in_order(self.box)

    @property
    def depth(self) -> int:
        """Number of slices in the cropped part."""
        return _length(self.part[0])

    @property
    def kept(self) -> tuple[int, int]:
        """Slice size after cropping, before resampling."""
        return _length(self.part[1]), _length(self.part[2])

    @property
    def whole(self) -> bool:
        """Whether nothing is cropped."""
        return (self.depth, *self.kept) == self.full

    def padded(self, slices: npt.NDArray[Any], outside: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Place kept slices (Z, ..., h, w) into the whole image, filled with `outside` (...).

        Without cropping, the slices themselves.
        """
        if self.whole:
            return slices
        depth, height, width = self.full
        found = np.empty((depth, *slices.shape[1:-2], height, width), slices.dtype)
        found[...] = outside[..., None, None]
        z, y, x = self.part
        found[z, ..., y, x] = slices
        return found

    def _in_order(self, values: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        first = values[self.axis]
        second, third = (value for i, value in enumerate(values) if i != self.axis)
        return first, second, third


def _length(part: slice) -> int:
    return int(part.stop - part.start)
