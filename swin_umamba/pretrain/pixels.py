"""Convert images of any size to uint8 squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from swin_umamba.errors import UserError

Bytes = npt.NDArray[np.uint8]
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow


def tile_of(image: npt.NDArray[Any], side: int, channels: int, name: str) -> Bytes:
    """Convert an 8- or 16-bit image (C, H, W) to (channels, side, side).

    Its shorter side becomes `side`, and the center is kept. channels: 1, or 3. An alpha channel is
    dropped. Raises UserError, naming the image, for other dtypes or numbers of channels.
    """
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.dtype != np.uint8 or image.shape[0] > 4:
        raise UserError(
            f"{name} holds {image.dtype} with {image.shape[0]} channels, expected 8 or 16 bits with"
            " 1 to 4"
        )
    colours = image[: 3 if image.shape[0] > 2 else 1]
    rows = colours.transpose(1, 2, 0)
    picture = Image.fromarray(rows if rows.shape[2] == 3 else rows[..., 0])
    picture = picture.convert("RGB" if channels == 3 else "L")
    width, height = picture.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    picture = picture.resize(
        (side, side), Image.Resampling.BICUBIC, (left, top, left + short, top + short)
    )
    pixels = np.asarray(picture)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if channels == 3 else pixels[None]


def is_coloured(image: npt.NDArray[Any]) -> bool:
    """Whether an image (C, H, W) has colors, not counting alpha."""
    return bool(image.shape[0] > 2)


def grey_of(pixels: Bytes) -> Bytes:
    """Tiles (N, 3, S, S) as (N, 1, S, S)."""
    grey: Bytes = np.empty((len(pixels), 1, *pixels.shape[2:]), np.uint8)
    for first in range(0, len(pixels), 1024):
        part = pixels[first : first + 1024].astype(np.float64)
        grey[first : first + 1024, 0] = np.einsum("nchw,c->nhw", part, _LUMA).round()
    return grey
