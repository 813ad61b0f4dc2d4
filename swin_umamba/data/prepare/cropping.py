"""Crop to the nonzero part of an image, as nnU-Net does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[slice, slice, slice]


def nonzero_box(pixels: npt.NDArray[Any]) -> Box:
    """The smallest box (z, y, x) with every pixel of (C, Z, H, W) that is nonzero in any channel.

    An image of zeros is kept whole.
    """
    some = np.zeros(pixels.shape[1:], bool)
    for channel in pixels:
        np.logical_or(some, channel, out=some)
    if not some.any():
        return box_of_all(some.shape)
    return _span(some, (1, 2)), _span(some, (0, 2)), _span(some, (0, 1))


def _span(some: npt.NDArray[np.bool_], others: tuple[int, int]) -> slice:
    """From the first to the last that is true, along the axis that is left."""
    (places,) = np.nonzero(some.any(axis=others))
    return slice(int(places[0]), int(places[-1]) + 1)


def nonzero_mask(pixels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where any channel of (C, Z, H, W) is nonzero, with holes filled: (Z, H, W).

    Holes are filled in 3-D: in a volume of one slice nothing is enclosed, as in nnU-Net.
    """
    from scipy.ndimage import binary_fill_holes

    mask: npt.NDArray[np.bool_] = binary_fill_holes((pixels != 0).any(axis=0))
    return mask


def box_of_all(shape: tuple[int, ...]) -> Box:
    """The box of a whole image (Z, H, W)."""
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)
