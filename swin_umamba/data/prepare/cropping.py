"""The part of an image that is not zero, as nnU-Net crops to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[slice, slice, slice]


def nonzero_box(pixels: npt.NDArray[Any]) -> Box:
    """The smallest box (z, y, x) with every pixel of (C, Z, H, W) of which a channel is not 0.

    An image of zeros keeps all of itself.
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
    """Where any channel of (C, Z, H, W) is not 0, with its holes filled: (Z, H, W).

    Holes are those of the volume: in one of a single slice nothing is enclosed, as in nnU-Net.
    """
    from scipy.ndimage import binary_fill_holes

    mask: npt.NDArray[np.bool_] = binary_fill_holes((pixels != 0).any(axis=0))
    return mask


def box_of_all(shape: tuple[int, ...]) -> Box:
    """The box of a whole image (Z, H, W)."""
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)
