"""Images and masks as their files hold them, with what is needed to write back in their form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.formats import Geometry, NiftiGeometry, read_file
from swin_umamba.errors import UserError

IGNORED = -1
_UNKNOWN = -2
# Spacings of an image's channels and of its mask may differ by rounding in their headers.
_SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RawImage:
    """An image as its files hold it.

    pixels: (C, Z, H, W) of the file's real dtype, finite; Z = 1 for 2-D. Axes are those of the
    arrays, without reorientation (NIfTI reversed to z, y, x). spacing: (z, y, x), in the file's
    unit, 1 where the format has none. paths: the files, one or more channels each. geometry: what
    `write_labels` needs beyond the pixels' shape.
    """

    pixels: npt.NDArray[Any]
    spacing: tuple[float, float, float]
    paths: tuple[Path, ...]
    geometry: Geometry


@dataclass(frozen=True)
class RawLabels:
    """A map of whole numbers (Z, H, W) int64 as its file holds them; the rest as RawImage."""

    labels: npt.NDArray[np.int64]
    spacing: tuple[float, float, float]
    path: Path
    geometry: Geometry


def read_raw(paths: str | Path | Sequence[str | Path]) -> RawImage:
    """Read an image from its file, or from its files in the order of the channels.

    Raises UserError, naming the file, if one is missing, damaged, holds NaN or infinite pixels,
    or does not fit the first one's shape and spacing.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise ValueError("paths: got none, expected at least one")
    read = [read_file(path, palette=False) for path in files]
    first = read[0]
    for path, part in zip(files, read, strict=True):
        _require_fit(path, part.pixels.shape[1:], files[0], first.pixels.shape[1:])
        _require_spacing(path, part.spacing, files[0], first.spacing)
        if part.pixels.dtype.kind == "f" and not np.isfinite(part.pixels).all():
            raise UserError(f"{path} holds NaN or infinite pixels")
    pixels = first.pixels if len(read) == 1 else np.concatenate([part.pixels for part in read])
    return RawImage(pixels, first.spacing, tuple(files), first.geometry)


def read_labels(path: str | Path, like: RawImage | None = None) -> RawLabels:
    """Read a map of class or instance numbers; palette pictures give their indices.

    like: the image it belongs to. Raises UserError, naming the file, if it is missing, damaged,
    has several channels, holds other than whole numbers >= 0, or its shape, spacing or
    orientation is not that of `like`.
    """
    path = Path(path)
    read = read_file(path, palette=True)
    if read.pixels.shape[0] != 1:
        raise UserError(
            f"{path} has {read.pixels.shape[0]} channels, expected a mask of one, each pixel the"
            " number of its class"
        )
    values = read.pixels[0]
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise UserError(f"{path} holds {values.dtype}, expected whole numbers")
    if values.dtype.kind != "b" and values.min() < 0:
        raise UserError(f"{path} holds negative numbers, expected 0 for the background and above")
    if like is not None:
        _require_fit(path, values.shape, like.paths[0], like.pixels.shape[1:])
        _require_spacing(path, read.spacing, like.paths[0], like.spacing)
        _require_orientation(path, read.geometry, like)
    return RawLabels(values.astype(np.int64), read.spacing, path, read.geometry)


def classes_of(
    raw: RawLabels, values: Sequence[int], ignore_label: int | None = None
) -> npt.NDArray[np.int64]:
    """The class of every pixel, (Z, H, W): the place of its number in `values`, -1 where ignored.

    Raises UserError, naming the file and the number, for numbers that are neither.
    """
    known = {value: number for number, value in enumerate(values)}
    if ignore_label is not None:
        known[ignore_label] = IGNORED
    beyond = max(known) + 1
    table = np.full(beyond + 1, _UNKNOWN, np.int64)
    table[list(known)] = list(known.values())
    classes: npt.NDArray[np.int64] = table[np.minimum(raw.labels, beyond)]
    if classes.min() == _UNKNOWN:
        found = np.unique(raw.labels[classes == _UNKNOWN])
        some = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        expected = ", ".join(map(str, sorted(known)))
        raise UserError(f"{raw.path} holds the label {some}, expected one of {expected}")
    return classes


def _require_fit(
    path: Path, shape: tuple[int, ...], other: Path, expected: tuple[int, ...]
) -> None:
    if shape != expected:
        raise UserError(
            f"{path} is {_size(shape)} but {other} is {_size(expected)} pixels; they belong"
            " together and must have one size"
        )


def _require_spacing(
    path: Path, spacing: tuple[float, ...], other: Path, expected: tuple[float, ...]
) -> None:
    if not np.allclose(spacing, expected, rtol=_SPACING_TOLERANCE, atol=0):
        raise UserError(
            f"{path} has the spacing {spacing} but {other} {expected}; they belong together and"
            " must have one"
        )


def _require_orientation(path: Path, geometry: Geometry, like: RawImage) -> None:
    """Flipped axes make masks that fit in shape and are wrong everywhere."""
    if not isinstance(geometry, NiftiGeometry) or not isinstance(like.geometry, NiftiGeometry):
        return
    ours, theirs = (part.affine[:3, :3] for part in (geometry, like.geometry))
    limit = 0.1 * np.abs(theirs).max()
    if np.abs(ours - theirs).max() > limit:
        raise UserError(
            f"{path} and {like.paths[0]} are oriented unlike: their affines differ; store both in"
            " one orientation"
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:] if shape[0] == 1 else shape))
