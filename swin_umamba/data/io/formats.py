"""Read the pixels of one file: PNG, JPEG, BMP, TIFF and NIfTI."""

from __future__ import annotations

import json
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from swin_umamba.errors import UserError

NIFTI_ENDINGS = (".nii.gz", ".nii")
TIFF_ENDINGS = (".tif", ".tiff")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
ENDINGS = (*NIFTI_ENDINGS, *TIFF_ENDINGS, *PICTURE_ENDINGS)

# What the libraries raise for damaged files.
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
# tifffile's letters for the axes of a series that are samples of one pixel.
_CHANNEL_AXES = "SC"


@dataclass(frozen=True)
class NiftiGeometry:
    """The header (nibabel's, with its affine), and the file's shape (X, Y) or (X, Y, Z, ...)."""

    header: Any
    affine: npt.NDArray[np.float64]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TiffGeometry:
    """The resolution tags as (pixels per unit in x, in y) and the unit's number in TIFF."""

    resolution: tuple[float, float] | None
    unit: int


Geometry = NiftiGeometry | TiffGeometry | None


@dataclass(frozen=True)
class FilePixels:
    """What one file holds: pixels (C, Z, H, W) of its dtype, spacing (z, y, x), and geometry."""

    pixels: npt.NDArray[Any]
    spacing: tuple[float, float, float]
    geometry: Geometry


def ending_of(path: Path) -> str | None:
    """The part of ENDINGS that the file's name ends with, as it is written there."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[-len(ending) :]
    return None


def read_file(path: Path, *, palette: bool) -> FilePixels:
    """The pixels of a file.

    Pictures and 2-D TIFFs have Z = 1; a TIFF of several pages is a volume; NIfTI is taken in the
    order (Z, Y, X), the reverse of the file's, without reorientation. palette: whether pictures
    with one give its indices or their colours. An alpha channel that is opaque everywhere is
    dropped; colours of 16 bits in a PNG are read with 8, as Pillow does. Spacing is 1 where the
    format has none; a TIFF volume's is read from `{"spacing": [z, y, x]}` in a JSON file of its
    name, as in nnU-Net. Raises UserError, naming the file, if it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"no file at {path}")
    ending = (ending_of(path) or "").lower()
    try:
        if ending in NIFTI_ENDINGS:
            read = _read_nifti(path)
        elif ending in TIFF_ENDINGS:
            with _silent("tifffile"):
                read = _read_tiff(path)
        else:
            read = _read_picture(path, palette)
    except _DAMAGE as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{path} is damaged or no image: {reason}") from error
    if read.pixels.size == 0 or read.pixels.dtype.kind not in "buif":
        raise UserError(f"{path} holds {read.pixels.dtype} {read.pixels.shape}, expected an image")
    return read


def _read_picture(path: Path, palette: bool) -> FilePixels:
    with Image.open(path) as picture:
        coloured = picture.mode == "P" and not palette
        pixels = np.asarray(picture.convert("RGB") if coloured else picture)
        if picture.mode in ("RGBA", "LA") and (pixels[..., -1] == 255).all():
            pixels = pixels[..., :-1]
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return FilePixels(pixels.transpose(2, 0, 1)[:, None], (1.0, 1.0, 1.0), None)


def _read_tiff(path: Path) -> FilePixels:
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        pixels, axes = series.asarray(), series.axes
        unit = page.tags.valueof("ResolutionUnit", 1)
        rates = [page.tags.valueof(f"{axis}Resolution") for axis in "XY"]
    channels = [i for i, axis in enumerate(axes) if axis in _CHANNEL_AXES]
    slices = [i for i, axis in enumerate(axes) if axis not in (*_CHANNEL_AXES, "Y", "X")]
    if len(channels) > 1 or len(slices) > 1 or not {"X", "Y"} <= set(axes):
        raise UserError(
            f"{path} has shape {pixels.shape} (axes {axes}), expected pixels with at most one"
            " axis of channels and one of slices"
        )
    pixels = pixels.transpose(*channels, *slices, axes.index("Y"), axes.index("X"))
    pixels = pixels if channels else pixels[None]
    pixels = pixels if slices else pixels[:, None]
    resolution = None
    if all(isinstance(rate, tuple) and len(rate) == 2 and rate[1] for rate in rates):
        resolution = (rates[0][0] / rates[0][1], rates[1][0] / rates[1][1])
    geometry = TiffGeometry(resolution, int(unit))
    return FilePixels(pixels, _tiff_spacing(path) if slices else (1.0, 1.0, 1.0), geometry)


def files_of(path: Path) -> tuple[Path, ...]:
    """The file, and the note of a TIFF's spacing if it has one."""
    note = _note(path)
    return (path, note) if note is not None and note.is_file() else (path,)


def _note(path: Path) -> Path | None:
    ending = ending_of(path)
    if ending is None or ending.lower() not in TIFF_ENDINGS:
        return None
    return path.with_name(re.sub(r"(_\d{4})?$", ".json", path.name[: -len(ending)], count=1))


def _tiff_spacing(path: Path) -> tuple[float, float, float]:
    note = _note(path)
    if note is None or not note.is_file():
        return (1.0, 1.0, 1.0)
    try:
        z, y, x = (float(value) for value in json.loads(note.read_text("utf-8"))["spacing"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f'{note} is not {{"spacing": [z, y, x]}}: {error}') from error
    return _checked((z, y, x), note)


def _read_nifti(path: Path) -> FilePixels:
    import nibabel

    try:
        with _silent("nibabel.global"):
            image: Any = nibabel.load(path)
            values = np.asanyarray(image.dataobj)
    except nibabel.filebasedimages.ImageFileError as error:
        raise UserError(f"{path} is damaged or no image: {error}") from error
    shape = values.shape
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise UserError(
            f"{path} has shape {shape}, expected a volume (x, y, z); give channels or times as"
            " files of their own (_0000, _0001, ...)"
        )
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    zooms += [1.0] * (3 - len(zooms))
    spacing = _checked((zooms[2], zooms[1], zooms[0]), path)
    geometry = NiftiGeometry(image.header.copy(), np.array(image.affine), shape)
    return FilePixels(values.transpose(2, 1, 0)[None], spacing, geometry)


def _checked(spacing: tuple[float, float, float], path: Path) -> tuple[float, float, float]:
    if not all(np.isfinite(value) and value > 0 for value in spacing):
        raise UserError(f"{path} has the spacing {spacing}, expected three numbers above 0")
    return spacing


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
