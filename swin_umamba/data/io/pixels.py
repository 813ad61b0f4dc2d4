"""What a reader gives: the pixels of a file, and where in the world they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
Axes = tuple[Vector, Vector, Vector]

# World coordinates are ITK's and DICOM's: millimetres to the left, posterior and superior of the
# patient (LPS). NIfTI's affines go to the right and anterior.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class NiftiGeometry:
    """The header (nibabel's, with its affine), and the file's shape (X, Y) or (X, Y, Z, ...)."""

    header: Any
    affine: npt.NDArray[np.float64]
    shape: tuple[int, ...]

    @property
    def position(self) -> tuple[Vector, Axes] | None:
        """Origin and direction as in `Grid`; None if the header has no sform and no qform."""
        if self.header is None or not (self.header["sform_code"] or self.header["qform_code"]):
            return None
        columns = RAS_TO_LPS @ self.affine[:3, :3]
        x, y, z = (vector(column / np.linalg.norm(column)) for column in columns.T)
        return vector(RAS_TO_LPS @ self.affine[:3, 3]), (z, y, x)


@dataclass(frozen=True)
class TiffGeometry:
    """The resolution tags as (pixels per unit in x, in y) and the unit's number in TIFF."""

    resolution: tuple[float, float] | None
    unit: int


@dataclass(frozen=True)
class ItkGeometry:
    """The shape of a MetaImage or NRRD file: (X, Y) or (X, Y, Z)."""

    shape: tuple[int, ...]


Geometry = NiftiGeometry | TiffGeometry | ItkGeometry | None


class Grid(Protocol):
    """Where pixels (Z, H, W) lie.

    spacing: (z, y, x), in the file's unit. origin: the place (x, y, z) of the first pixel, in mm,
    LPS. direction: unit vectors (x, y, z) along the axes z, y and x of the array. Both are None
    where the format has none.
    """

    @property
    def spacing(self) -> Vector: ...
    @property
    def origin(self) -> Vector | None: ...
    @property
    def direction(self) -> Axes | None: ...
    @property
    def geometry(self) -> Geometry: ...


@dataclass(frozen=True)
class FilePixels:
    """What one file holds: pixels (C, Z, H, W) of its dtype, and their grid.

    shown: of masks whose numbers differ from what viewers show, as those of 1 bit or of a palette
    of greys: the grey of every number.
    """

    pixels: npt.NDArray[Any]
    spacing: Vector = (1.0, 1.0, 1.0)
    geometry: Geometry = None
    origin: Vector | None = None
    direction: Axes | None = None
    shown: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """How to read. mask: numbers of classes are wanted, not colours. max_pixels: see `limits`."""

    mask: bool
    max_pixels: int | None = None


def vector(values: npt.ArrayLike) -> Vector:
    """Three numbers as Python's floats."""
    x, y, z = np.asarray(values, np.float64).tolist()
    return x, y, z
