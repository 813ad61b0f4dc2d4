"""Archives of tiles: one array in a file, or pictures that each show many tiles in rows.

A folder with tiles.npy, uint8 (N, S, S), (N, S, S, C) or (N, C, S, S), or with mosaic_0, mosaic_1,
... in any picture format, with tiles row by row; and labels.npy, integers (N,). Class names may be
in classes.txt, one per line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from swin_umamba.data.io.limits import damage_named
from swin_umamba.errors import UserError
from swin_umamba.pretrain.pixels import grey_of
from swin_umamba.pretrain.tiles import Indices, Tiles, digest_of

TILES, LABELS, CLASSES = "tiles.npy", "labels.npy", "classes.txt"
_MOSAIC = re.compile(r"mosaic_(\d+)\.(avif|png|webp|jpg|jpeg|tif|tiff)", re.IGNORECASE)
_FORMATS = ("AVIF", "PNG", "WEBP", "JPEG", "TIFF")
_MAX_CLASSES = 100_000


def is_archive(folder: Path) -> bool:
    """Whether a folder is an archive of tiles."""
    return (folder / TILES).is_file() or (bool(_mosaics(folder)) and (folder / LABELS).is_file())


def read_archive(folder: Path, *, labelled: bool, channels: int | None) -> Tiles:
    """The tiles of an archive. channels: 1 converts RGB to gray; None: as stored.

    Raises UserError, naming the file, for anything missing, damaged or inconsistent.
    """
    labels = None
    if (folder / LABELS).is_file():
        labels = _labels(folder / LABELS)
    elif labelled:
        raise UserError(f"{folder / LABELS} is missing, which holds the class of every tile")
    if (folder / TILES).is_file():
        pixels = _array(folder / TILES)
    else:
        assert labels is not None  # name prefix by which `is_archive` recognizes mosaics
        pixels = _cut(_mosaics(folder), len(labels))
    if labels is not None and len(labels) != len(pixels):
        raise UserError(f"{folder}: {len(pixels)} tiles and {len(labels)} labels")
    if channels == 1 and pixels.shape[1] == 3:
        pixels = grey_of(pixels)
    if channels not in (None, pixels.shape[1]):
        raise UserError(f"in_channels: got {channels}, the tiles have {pixels.shape[1]}")
    digest = digest_of(pixels, *(() if labels is None else (labels,)))
    return Tiles(
        folder.name,
        pixels,
        labels if labelled else None,
        _class_names(folder, labels) if labelled and labels is not None else (),
        digest,
    )


def _mosaics(folder: Path) -> list[Path]:
    found = [(m, p) for p in folder.iterdir() if (m := _MOSAIC.fullmatch(p.name)) is not None]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found)]


def _load(path: Path) -> npt.NDArray[Any]:
    with damage_named(path):
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _labels(path: Path) -> Indices:
    labels = _load(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        raise UserError(f"{path} holds {labels.dtype} {labels.shape}, expected whole numbers (N,)")
    if not 0 <= labels.min() <= labels.max() < _MAX_CLASSES:
        raise UserError(
            f"{path} holds {labels.min()} to {labels.max()}, expected 0 to {_MAX_CLASSES - 1}"
        )
    return labels.astype(np.int64)


def _array(path: Path) -> npt.NDArray[np.uint8]:
    pixels = _load(path)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3] or pixels.dtype != np.uint8:
        raise UserError(
            f"{path} holds {pixels.dtype} {pixels.shape}, expected uint8 (N, S, S), (N, S, S, C)"
            " or (N, C, S, S)"
        )
    return np.ascontiguousarray(pixels)


def _cut(mosaics: list[Path], count: int) -> npt.NDArray[np.uint8]:
    sheets = [_picture(path) for path in mosaics]
    area = sum(sheet.shape[0] * sheet.shape[1] for sheet in sheets) / count
    side = round(area**0.5)
    if side < 1 or side * side != area:
        raise UserError(
            f"{mosaics[0].parent}: its mosaics have {area:g} pixels for each of the {count} labels,"
            " expected a square number"
        )
    parts = []
    for path, sheet in zip(mosaics, sheets, strict=True):
        height, width, channels = sheet.shape
        if height % side or width % side or channels != sheets[0].shape[2]:
            raise UserError(
                f"{path} is {width}x{height}, which is not a multiple of {side}x{side} tiles"
            )
        rows = sheet.reshape(height // side, side, width // side, side, channels)
        parts.append(rows.transpose(0, 2, 4, 1, 3).reshape(-1, channels, side, side))
    return np.concatenate(parts)


def _picture(path: Path) -> npt.NDArray[np.uint8]:
    with damage_named(path), Image.open(path, formats=_FORMATS) as picture:
        pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _class_names(folder: Path, labels: Indices) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    path = folder / CLASSES
    if not path.is_file():
        return tuple(map(str, range(count)))
    with damage_named(path):
        names = path.read_text(encoding="utf-8").splitlines()
    if len(names) < count:
        raise UserError(f"{path} names {len(names)} classes, the labels are up to {count - 1}")
    return tuple(names)
