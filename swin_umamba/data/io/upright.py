"""Apply EXIF orientation: from pixels as stored to pixels as viewers show them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ORIENTATION = 0x0112  # the tag number, the same in EXIF and TIFF
_SWAPPED = (5, 6, 7, 8)
_ROWS_BACKWARDS = (3, 4, 6, 7)  # names of the stored order
_COLUMNS_BACKWARDS = (2, 3, 7, 8)


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(..., H, W) as stored -> as shown. orientation: EXIF's 1 to 8; other values do nothing."""
    if orientation in _ROWS_BACKWARDS:
        pixels = np.flip(pixels, -2)
    if orientation in _COLUMNS_BACKWARDS:
        pixels = np.flip(pixels, -1)
    return np.swapaxes(pixels, -2, -1) if swaps_axes(orientation) else pixels


def swaps_axes(orientation: int) -> bool:
    """Whether rows become columns."""
    return orientation in _SWAPPED
