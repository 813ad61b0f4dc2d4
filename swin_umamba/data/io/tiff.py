"""TIFF, through tifffile and imagecodecs: pages, ImageJ, OME, all compressions these support."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from swin_umamba.common.files import replacing, write_text
from swin_umamba.common.jsons import load_object
from swin_umamba.data.io.limits import (
    LZW_RATIO,
    VOLUME_PIXELS,
    check_spacing,
    require_bytes,
    require_pixels,
)
from swin_umamba.data.io.pictures import by_palette, without_opaque_alpha
from swin_umamba.data.io.pixels import FilePixels, Grid, Reading, TiffGeometry, Vector
from swin_umamba.data.io.upright import swaps_axes, upright
from swin_umamba.errors import UserError

# tifffile's letters for axes that are samples of one pixel.
_CHANNEL_AXES = "SC"
MAX_PAGES = 1 << 14  # each page takes milliseconds, whatever its size
_UNCOMPRESSED = (1,)
_BOUNDED = (2, 3, 4, 5, 8, 32773, 32946)  # compressions with a bounded ratio: CCITT, LZW, Deflate
_JPEG = (6, 7)
_ALPHA = (1, 2)  # ExtraSamples values for alpha, associated or not
_REDUCED = 1  # the bit of NewSubfileType
_DESCRIPTION = 270  # tags of OME, ImageJ and tifffile that describe the axes of a stack
_XMP = 700
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_NO_SPACING: Vector = (1.0, 1.0, 1.0)

Shown = tuple[int, ...] | None


def read(path: Path, reading: Reading) -> FilePixels:
    """A TIFF as (C, Z, H, W), upright; see `formats.read_file`."""
    with _raising_logged_errors(path), tifffile.TiffFile(path, _multifile=False) as file:
        page = file.pages.first
        if (count := len(file.pages)) > MAX_PAGES:
            raise UserError(f"{path} has {count} pages, expected at most {MAX_PAGES}")
        series = _only_series(file, path)
        _require_whole(series, path, reading.max_pixels)
        if page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression not in _JPEG:
            pixels, axes = _ycbcr(path, series, page)
        else:
            pixels, axes = series.asarray(maxworkers=1), series.axes
        slices = _slices(axes, pixels.shape, path)
        pixels = _in_order(pixels, axes)
        pixels, shown = _as_shown(pixels, page, reading.mask, path)
        orientation, alpha = _orientation(page), _has_alpha(page)
        resolution, unit = _resolution(page)
    if swaps_axes(orientation) and resolution is not None:
        resolution = resolution[::-1]
    pixels = without_opaque_alpha(pixels) if alpha else pixels
    spacing = _spacing(path) if slices else _NO_SPACING
    geometry = TiffGeometry(resolution, unit)
    return FilePixels(upright(pixels, orientation), spacing, geometry, shown=shown)


def write(path: Path, stack: npt.NDArray[Any], like: Grid) -> None:
    """Write labels (Z, H, W) with the resolution of an image, and a volume's spacing beside it."""
    geometry = like.geometry if isinstance(like.geometry, TiffGeometry) else TiffGeometry(None, 1)
    pixels = stack[0] if stack.shape[0] == 1 else stack
    if pixels.ndim == 3 and (like.spacing != _NO_SPACING or note_of(path).is_file()):
        text = json.dumps({"spacing": list(like.spacing)})
        write_text(path.with_suffix(".json"), text + "\n")
    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            pixels,
            compression="zlib",
            photometric="minisblack",
            resolution=geometry.resolution,
            resolutionunit=geometry.unit,
            metadata={"axes": "YX" if pixels.ndim == 2 else "ZYX"},
        )


def note_of(path: Path) -> Path:
    """The JSON file with a TIFF's spacing: of the same name, or else of that without the channel.

    nnU-Net uses the former for masks and the latter for images.
    """
    own = path.with_suffix(".json")
    return own if own.is_file() else own.with_name(re.sub(r"_\d{4}\.json$", ".json", own.name))


def _spacing(path: Path) -> Vector:
    note = note_of(path)
    if not note.is_file():
        return _NO_SPACING
    try:
        z, y, x = (float(value) for value in load_object(note, "a TIFF's spacing")["spacing"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{note} is not {{"spacing": [z, y, x]}}: {error}') from error
    return check_spacing((z, y, x), note)


def _only_series(file: tifffile.TiffFile, path: Path) -> tifffile.TiffPageSeries:
    """The first series; any others must be smaller copies of it."""
    first, *others = file.series
    for other in others:
        if not other.keyframe.subfiletype & _REDUCED:
            raise UserError(
                f"{path} holds {len(file.series)} images of different sizes or types,"
                f" {first.shape} and {other.shape}: store each in its own file"
            )
    return first


def _require_whole(series: tifffile.TiffPageSeries, path: Path, max_pixels: int | None) -> None:
    """Raise UserError for more pixels than allowed, or than the file's bytes can contain."""
    require_pixels(path, math.prod(series.shape), VOLUME_PIXELS, max_pixels)
    length, claimed, page = path.stat().st_size, 0, series.keyframe
    for part in series.pages:
        if part is None:
            raise UserError(f"{path} lacks pages that its header names, or is one of several files")
        for offset, count in zip(part.dataoffsets, part.databytecounts, strict=True):
            if count <= 0 or offset + count > length:
                raise UserError(f"{path} is damaged or not an image: pixels of a page are missing")
            claimed += count
    bits = math.prod(series.shape) * page.bitspersample
    if page.compression in _UNCOMPRESSED:
        # Subsampled colors need fewer.
        ratio = 4 if page.photometric == tifffile.PHOTOMETRIC.YCBCR else 1
        require_bytes(path, bits // 8, ratio)
    elif page.compression in _BOUNDED:
        require_bytes(path, bits // 8, LZW_RATIO)


def _slices(axes: str, shape: tuple[int, ...], path: Path) -> bool:
    """Whether there is a slice axis."""
    channels = [axis for axis in axes if axis in _CHANNEL_AXES]
    slices = [axis for axis in axes if axis not in (*_CHANNEL_AXES, "Y", "X")]
    if len(channels) > 1 or len(slices) > 1 or not {"X", "Y"} <= set(axes):
        raise UserError(
            f"{path} has shape {shape} (axes {axes}), expected pixels with at most one axis of"
            " channels and one of slices"
        )
    return bool(slices)


def _in_order(pixels: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """(C, Z, H, W)."""
    channels = [i for i, axis in enumerate(axes) if axis in _CHANNEL_AXES]
    slices = [i for i, axis in enumerate(axes) if axis not in (*_CHANNEL_AXES, "Y", "X")]
    pixels = pixels.transpose(*channels, *slices, axes.index("Y"), axes.index("X"))
    pixels = pixels if channels else pixels[None]
    return pixels if slices else pixels[:, None]


def _as_shown(
    pixels: npt.NDArray[Any], page: tifffile.TiffPage, mask: bool, path: Path
) -> tuple[npt.NDArray[Any], Shown]:
    """Colors (C, Z, H, W) as RGB, with white as the highest value; mask values as stored."""
    kind, photometric = page.photometric, tifffile.PHOTOMETRIC
    if kind == photometric.PALETTE:
        return _from_palette(pixels, page, mask)
    if kind in (photometric.MINISWHITE, photometric.MINISBLACK, photometric.MASK):
        return _grey(pixels, page, mask, path)
    if kind == photometric.SEPARATED:
        return _rgb_of_inks(pixels, path), None
    if kind not in (photometric.RGB, photometric.YCBCR):
        name = getattr(kind, "name", kind)
        raise UserError(f"{path} has the color model {name}, expected gray or RGB")
    return pixels, None


def _from_palette(
    pixels: npt.NDArray[Any], page: tifffile.TiffPage, mask: bool
) -> tuple[npt.NDArray[Any], Shown]:
    pixels = pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels
    indices, rest = pixels[:1], pixels[1:]
    colours = np.asarray(page.colormap).astype(np.int64)  # (3, N), of 16 bits
    if colours.max() > 255:  # some writers store 8 bits
        colours >>= 8
    if mask:
        numbers, shown = by_palette(indices, colours.T)
        return np.concatenate([numbers, rest]), shown
    return np.concatenate([colours.astype(np.uint8)[:, indices[0]], rest]), None


def _grey(
    pixels: npt.NDArray[Any], page: tifffile.TiffPage, mask: bool, path: Path
) -> tuple[npt.NDArray[Any], Shown]:
    bits = page.bitspersample
    pixels = pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = pixels[: len(pixels) - 1] if _has_alpha(page) else pixels
        if values.dtype.kind == "f":
            raise UserError(f"{path} declares its lowest value as white, but contains floats")
        highest = 2**bits - 1 if values.dtype.kind == "u" else -1
        pixels = np.concatenate([(highest - values).astype(values.dtype), pixels[len(values) :]])
    if bits >= 8:
        return pixels, None
    highest = 2**bits - 1
    greys = tuple(i * 255 // highest for i in range(highest + 1))
    if mask:
        return pixels, greys
    return pixels if bits == 1 else np.asarray(greys, np.uint8)[pixels], None


def _rgb_of_inks(pixels: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """RGB, with alpha if there is any, from cyan, magenta, yellow and black."""
    if pixels.shape[0] not in (4, 5) or pixels.dtype.kind != "u":
        raise UserError(f"{path} has {pixels.shape[0]} inks, expected cyan, magenta, yellow, black")
    if pixels.dtype == np.uint8:
        rgb = np.moveaxis(_converted("CMYK", np.moveaxis(pixels[:4], 0, -1)), -1, 0)
    else:
        highest = np.iinfo(pixels.dtype).max
        left = highest - pixels[:4].astype(np.float64)
        rgb = np.rint(left[:3] * left[3] / highest).astype(pixels.dtype)
    return np.concatenate([rgb, pixels[4:]])


def _converted(mode: str, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., W, samples) uint8 in a Pillow mode -> RGB (..., W, 3)."""
    *rows, width, _ = pixels.shape
    content = np.ascontiguousarray(pixels).tobytes()
    picture = Image.frombytes(mode, (width, math.prod(rows)), content)
    return np.asarray(picture.convert("RGB")).reshape(*rows, width, 3)


def _ycbcr(
    path: Path, series: tifffile.TiffPageSeries, page: tifffile.TiffPage
) -> tuple[npt.NDArray[Any], str]:
    """RGB from colors that the codec has not converted to RGB."""
    if page.subsampling in (None, (1, 1)):
        stored, axes = series.asarray(maxworkers=1), series.axes
        if stored.dtype != np.uint8 or stored.shape[axes.index("S")] != 3:
            raise UserError(f"{path} has YCbCr colors of {stored.dtype}, expected uint8")
        last = np.moveaxis(stored, axes.index("S"), -1)
        return _converted("YCbCr", last), axes.replace("S", "") + "S"
    # tifffile does not read subsampled colors. Pillow may or may not apply the orientation.
    if len(series.pages) > 1 or _orientation(page) != 1:
        raise UserError(f"{path} has subsampled YCbCr colors: store it in RGB")
    with Image.open(path, formats=("TIFF",)) as picture:
        return np.asarray(picture.convert("RGB")), "YXS"


def _has_alpha(page: tifffile.TiffPage) -> bool:
    return bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA


def _orientation(page: tifffile.TiffPage) -> int:
    """The orientation from TIFF's own tag, or from XMP."""
    if (stated := page.tags.valueof("Orientation")) is not None:
        return int(stated)
    packet = page.tags.valueof(_XMP)
    found = _XMP_ORIENTATION.search(packet) if isinstance(packet, bytes) else None
    return int(found[1]) if found else 1


def _resolution(page: tifffile.TiffPage) -> tuple[tuple[float, float] | None, int]:
    unit = int(page.tags.valueof("ResolutionUnit", 1))
    rates = [page.tags.valueof(f"{axis}Resolution") for axis in "XY"]
    if all(isinstance(rate, tuple) and len(rate) == 2 and rate[1] for rate in rates):
        return (rates[0][0] / rates[0][1], rates[1][0] / rates[1][1]), unit
    return None, unit


class _LogFilter(logging.Filter):
    """Collects tifffile's log records of this thread: damage after which it reads on."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.errors: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread != self.thread:
            return True
        message = record.getMessage()
        # Unreadable tags do not matter unless they affect the pixels or the axes.
        tag = message.startswith("<TiffTag") and f"TiffTag {_DESCRIPTION} " not in message
        if record.levelno >= logging.ERROR and not tag:
            self.errors.append(message)
        return False


@contextmanager
def _raising_logged_errors(path: Path) -> Iterator[None]:
    """Raise UserError for damage that tifffile only logs, such as reading 1 slice of 6."""
    kept, logger = _LogFilter(), logging.getLogger("tifffile")
    logger.addFilter(kept)
    try:
        yield
    finally:
        logger.removeFilter(kept)
    if kept.errors:
        raise UserError(f"{path} is damaged or not an image: {kept.errors[0].splitlines()[0]}")
