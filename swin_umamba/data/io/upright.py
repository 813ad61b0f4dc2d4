"""EXIF's orientation: turn stored pixels to what viewers show."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ORIENTATION = 0x0112  # the tag, of EXIF and TIFF alike
_SWAPPED = (5, 6, 7, 8)
_ROWS_BACKWARDS = (3, 4, 6, 7)  # of what is stored
_COLUMNS_BACKWARDS = (2, 3, 7, 8)


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(..., H, W) as stored -> as shown. orientation: EXIF's 1 to 8; others change nothing."""
    if orientation in _ROWS_BACKWARDS:
        pixels = np.flip(pixels, -2)
    if orientation in _COLUMNS_BACKWARDS:
        pixels = np.flip(pixels, -1)
    return np.swapaxes(pixels, -2, -1) if swaps_axes(orientation) else pixels


def swaps_axes(orientation: int) -> bool:
    """Whether rows become columns."""
    return orientation in _SWAPPED
