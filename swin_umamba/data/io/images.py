"""Read 2-D images and masks from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.raw import read_labels, read_raw
from swin_umamba.errors import UserError

MAX_CHANNELS = 4


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """An image as (C, H, W) in its file's dtype: PNG, JPEG, TIFF and other 2-D formats.

    Raises UserError, naming the file, if it is missing, damaged or not an image of 1 to 4 channels.
    """
    pixels = read_raw(path).pixels
    if pixels.shape[1] > 1 or pixels.shape[0] > MAX_CHANNELS:
        shape = pixels.shape[1:] if pixels.shape[0] == 1 else pixels.shape
        raise UserError(
            f"{path} has shape {shape}, expected (height, width) with at most"
            f" {MAX_CHANNELS} channels"
        )
    return np.ascontiguousarray(pixels[:, 0])


def read_mask(path: str | Path) -> npt.NDArray[np.int64]:
    """A mask of class or instance numbers as (H, W).

    Raises UserError, naming the file, if it is missing, damaged or not a map of integers >= 0.
    """
    labels = read_labels(path).labels
    if labels.shape[0] > 1:
        raise UserError(f"{path} has shape {labels.shape}, expected a mask (height, width)")
    mask: npt.NDArray[np.int64] = labels[0]
    return mask
