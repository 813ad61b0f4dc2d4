"""Read images and masks from files."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from swin_umamba.errors import UserError

MAX_CHANNELS = 4
# What tifffile and Pillow raise for damaged files.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    TypeError,
    ZeroDivisionError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
    Image.DecompressionBombError,
)


def read_image(path: str | Path) -> npt.NDArray[Any]:
    """An image as (C, H, W) in its file's dtype: PNG, JPEG, TIFF and what else Pillow reads.

    Raises UserError, naming the file, if it is missing, damaged or no image of 1 to 4 channels.
    """
    pixels = _read(path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] > MAX_CHANNELS:
        raise UserError(
            f"{path} has shape {pixels.shape}, expected (height, width) or (height, width,"
            f" channels) with at most {MAX_CHANNELS} channels"
        )
    if not np.isfinite(pixels).all():
        raise UserError(f"{path} holds NaN or infinite pixels")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_mask(path: str | Path) -> npt.NDArray[np.int64]:
    """A mask of class or instance numbers as (H, W).

    Raises UserError, naming the file, if it is missing, damaged or no map of whole numbers >= 0.
    """
    labels = _read(path)
    if labels.ndim != 2:
        raise UserError(f"{path} has shape {labels.shape}, expected a mask (height, width)")
    if labels.dtype != np.bool_ and not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{path} holds {labels.dtype}, expected whole numbers")
    if labels.min() < 0:
        raise UserError(f"{path} holds negative numbers, expected 0 for the background and above")
    return labels.astype(np.int64)


def _read(path: str | Path) -> npt.NDArray[Any]:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file at {path}")
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with _silent("tifffile"):
                pixels = tifffile.imread(path)
        else:
            pixels = imageio.imread(path, plugin="pillow")
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is damaged or no image: {reason}") from error
    if pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise UserError(f"{path} holds {pixels.dtype} {pixels.shape}, expected an image")
    return np.asarray(pixels)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library from logging what it then raises."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
