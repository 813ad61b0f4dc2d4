"""Images and masks as stored, with everything needed to write results in the same form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.formats import read_file
from swin_umamba.data.io.geometry import require_one_grid
from swin_umamba.data.io.labels import IGNORED, RawLabels, classes_of, whole_numbers
from swin_umamba.data.io.pixels import Axes, Geometry, NiftiGeometry, Vector
from swin_umamba.errors import UserError

__all__ = ["IGNORED", "RawImage", "RawLabels", "classes_of", "read_labels", "read_raw"]


@dataclass(frozen=True)
class RawImage:
    """An image as stored in its files.

    pixels: (C, Z, H, W) in the file's real dtype, finite; Z = 1 for 2-D. Axes are in array order,
    without reorientation (NIfTI reversed to z, y, x). spacing: (z, y, x), in the file's unit, 1 if
    the format has none. paths: the files, with one or more channels each. geometry: what
    `write_labels` needs beyond the shape. origin: position (x, y, z) of the first pixel in mm, to
    the left, posterior and superior as in ITK. direction: unit vectors (x, y, z) along the array
    axes z, y and x. Both are None if the format has none.
    """

    pixels: npt.NDArray[Any]
    spacing: Vector
    paths: tuple[Path, ...]
    geometry: Geometry
    origin: Vector | None = None
    direction: Axes | None = None

    def __post_init__(self) -> None:
        if self.origin is None and isinstance(self.geometry, NiftiGeometry):
            origin, direction = self.geometry.position or (None, None)
            object.__setattr__(self, "origin", origin)
            object.__setattr__(self, "direction", direction)


def read_raw(
    paths: str | Path | Sequence[str | Path], *, max_pixels: int | None = None
) -> RawImage:
    """Read an image from its file, or from its files in channel order.

    paths may contain a folder with the slices of one DICOM series. max_pixels: maximum per file;
    None for $SWIN_UMAMBA_MAX_PIXELS, or 1.8e8 for pictures and 2^30 for volumes. Raises UserError,
    naming the file, if one is missing, damaged or too large, contains NaN or infinite pixels, or
    does not share the grid of the first: shape, spacing, origin and direction.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise ValueError("paths: got none, expected at least one")
    read = [read_file(path, palette=False, max_pixels=max_pixels) for path in files]
    first = read[0]
    for path, part in zip(files, read, strict=True):
        shape, size = part.pixels.shape[1:], first.pixels.shape[1:]
        require_one_grid(path, part, shape, files[0], first, size)
        if part.pixels.dtype.kind == "f" and not np.isfinite(part.pixels).all():
            raise UserError(f"{path} holds NaN or infinite pixels")
    pixels = first.pixels if len(read) == 1 else np.concatenate([part.pixels for part in read])
    return RawImage(
        pixels, first.spacing, tuple(files), first.geometry, first.origin, first.direction
    )


def read_labels(
    path: str | Path, like: RawImage | None = None, *, max_pixels: int | None = None
) -> RawLabels:
    """Read a map of class or instance numbers; palette images give their indices.

    Floats within 1e-3 of an integer are rounded. like: the image it belongs to. max_pixels: as in
    `read_raw`. Raises UserError, naming the file, if it is missing, damaged, has several channels,
    contains anything but integers from 0 to 2^63 - 1, or does not share the grid of `like`: shape,
    spacing, origin and direction.
    """
    path = Path(path)
    read = read_file(path, palette=True, max_pixels=max_pixels)
    if read.pixels.shape[0] != 1:
        raise UserError(
            f"{path} has {read.pixels.shape[0]} channels, expected a mask with one, each pixel the"
            " number of its class"
        )
    labels = whole_numbers(read.pixels[0], path)
    if like is not None:
        require_one_grid(path, read, labels.shape, like.paths[0], like, like.pixels.shape[1:])
    return RawLabels(
        labels, read.spacing, path, read.geometry, read.origin, read.direction, read.shown
    )
