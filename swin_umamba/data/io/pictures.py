"""PNG, JPEG and BMP, through Pillow; 16-bit PNG with color or alpha through imagecodecs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from swin_umamba.data.io.limits import (
    DEFLATE_RATIO,
    MOST_PIXELS,
    pixel_limit,
    require_bytes,
    require_pixels,
)
from swin_umamba.data.io.pixels import FilePixels, Grid, Reading
from swin_umamba.data.io.png_chunks import checked_header
from swin_umamba.data.io.upright import ORIENTATION, upright
from swin_umamba.drawing.png import write_png
from swin_umamba.errors import UserError

# Formats that may be in a file with a picture's ending; some of Pillow's others run programs.
_CONTENTS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000")
_AS_RGB = ("CMYK", "YCbCr", "HSV", "RGBX")
_AS_STORED = ("L", "I", "F", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B", "I;16N")
_GUARD = threading.Lock()


def read(path: Path, reading: Reading) -> FilePixels:
    """A picture as (C, 1, H, W), upright; see `formats.read_file`."""
    with _opened(path, reading.max_pixels) as picture:
        bits, samples = checked_header(path) if picture.format == "PNG" else (8, 0)
        if samples:
            width, height = picture.size
            require_bytes(path, height * (width * bits * samples // 8 + 1), DEFLATE_RATIO)
        if bits == 16 and samples > 1:
            import imagecodecs

            # Pillow keeps only 8 of them.
            pixels, shown = _with_alpha_of(picture, imagecodecs.png_decode(path.read_bytes())), None
        else:
            pixels, shown = pixels_of(picture, reading.mask, bits)
        orientation = picture.getexif().get(ORIENTATION, 1)
    pixels = upright(pixels.transpose(2, 0, 1)[:, None], orientation)
    return FilePixels(without_opaque_alpha(pixels), shown=shown)


def write(path: Path, stack: npt.NDArray[Any], like: Grid) -> None:
    """Write labels (1, H, W) as an 8- or 16-bit gray PNG."""
    if stack.shape[0] != 1:
        raise ValueError(f"labels: got {stack.shape[0]} slices, expected one for {path.name}")
    write_png(path, Image.fromarray(stack[0]), small=False)


def pixels_of(
    picture: Image.Image, mask: bool, bits: int = 8
) -> tuple[npt.NDArray[Any], tuple[int, ...] | None]:
    """(H, W, C) as stored, and the gray shown for each value of a mask, if different.

    bits: per sample in the file; Pillow widens 2 and 4 to 8. Alpha is the last channel.
    """
    mode = picture.mode
    if mode == "1" or (mode == "L" and bits < 8):
        return _few_bits(picture, mask, 1 if mode == "1" else bits)
    if mode in ("P", "PA"):
        if mask:
            indices = np.asarray(picture)
            return _indices(indices[..., 0] if mode == "PA" else indices, picture)
        opaque = mode == "P" and "transparency" not in picture.info
        return np.asarray(picture.convert("RGB" if opaque else "RGBA")), None
    if mode in _AS_RGB:
        return np.asarray(picture.convert("RGB")), None
    if mode not in _AS_STORED:
        raise UserError(f"{_name(picture)} has the color mode {mode}, expected gray or RGB")
    pixels = np.asarray(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels if mask else _with_alpha_of(picture, pixels), None


def without_opaque_alpha(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(C, ...) without the last of 2 or 4 channels if it has its dtype's maximum everywhere."""
    if pixels.shape[0] not in (2, 4) or pixels.dtype.kind != "u":
        return pixels
    opaque = (pixels[-1] == np.iinfo(pixels.dtype).max).all()
    return pixels[:-1] if opaque else pixels


def greys_of(palette: npt.NDArray[Any]) -> tuple[int, ...] | None:
    """The grays of a palette (N, 3), or None if it has colors."""
    if len(palette) == 0 or (palette != palette[:, :1]).any():
        return None
    return tuple(palette[:, 0].tolist())


def by_palette(
    indices: npt.NDArray[Any], palette: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], tuple[int, ...] | None]:
    """The values of a mask with a palette (N, 3), and the grays shown if it has no colors.

    A palette of only black and white means 0 and 1, in either order.
    """
    greys = greys_of(palette)
    if greys is not None and set(greys) == {0, 255}:
        return (np.asarray(greys)[indices] == 255).astype(np.uint8), (0, 255)
    return indices, greys


def _few_bits(
    picture: Image.Image, mask: bool, bits: int
) -> tuple[npt.NDArray[Any], tuple[int, ...] | None]:
    highest = 2**bits - 1
    # Pillow returns 1 bit as booleans, and 2 and 4 bits scaled to 0..255.
    pixels = np.asarray(picture).astype(np.uint8)[..., None]
    numbers = pixels if bits == 1 else pixels // (255 // highest)
    greys = tuple(i * 255 // highest for i in range(highest + 1))
    if mask:
        return numbers, greys
    colour = picture.info.get("transparency")
    shown = numbers if bits == 1 else np.asarray(greys, np.uint8)[numbers]
    if colour is None:
        return shown, None
    # Pillow returns the transparent value as stored, but 255 for white in 1 bit.
    seen = np.where(numbers == (colour > 0 if bits == 1 else colour), 0, 255)
    return np.concatenate([shown, seen.astype(np.uint8)], axis=2), None


def _indices(
    indices: npt.NDArray[Any], picture: Image.Image
) -> tuple[npt.NDArray[Any], tuple[int, ...] | None]:
    palette = np.asarray(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    if indices.size and indices.max() >= len(palette):
        return indices[..., None], None
    numbers, greys = by_palette(indices, palette)
    return numbers[..., None], greys


def _with_alpha_of(picture: Image.Image, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert PNG's single transparent color (tRNS) to an alpha channel."""
    colour = picture.info.get("transparency")
    if colour is None or isinstance(colour, bytes) or pixels.shape[2] not in (1, 3):
        return pixels
    seen = (pixels != np.asarray(colour, pixels.dtype)).any(2, keepdims=True)
    highest = np.iinfo(pixels.dtype).max
    return np.concatenate([pixels, seen.astype(pixels.dtype) * highest], axis=2)


@contextmanager
def _opened(path: Path, max_pixels: int | None) -> Iterator[Image.Image]:
    """Open a picture within the pixel limit: Pillow's own unless one is given."""
    guard = Image.MAX_IMAGE_PIXELS
    default = 2 * guard if guard is not None else MOST_PIXELS
    limit = pixel_limit(default, max_pixels)
    if limit == default:
        with Image.open(path, formats=_CONTENTS) as picture:
            yield picture
        return
    with _GUARD:
        # Pillow's limit is global to the process and checked on opening.
        Image.MAX_IMAGE_PIXELS = None
        try:
            picture = Image.open(path, formats=_CONTENTS)
        finally:
            Image.MAX_IMAGE_PIXELS = guard
    with picture:
        require_pixels(path, picture.width * picture.height, default, max_pixels)
        yield picture


def _name(picture: Image.Image) -> str:
    return str(getattr(picture, "filename", "") or "the picture")
