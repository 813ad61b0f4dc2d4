"""The result of a reader: a file's pixels, and their position in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vector = tuple[float, float, float]
Axes = tuple[Vector, Vector, Vector]

# World coordinates follow ITK and DICOM: millimetres to the patient's left, posterior and superior
# (LPS). NIfTI's affines point to the right and anterior.
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class NiftiGeometry:
    """The nibabel header, with its affine, and the file's shape (X, Y) or (X, Y, Z, ...)."""

    header: Any
    affine: npt.NDArray[np.float64]
    shape: tuple[int, ...]

    @property
    def position(self) -> tuple[Vector, Axes] | None:
        """Origin and direction as in `Grid`; None if the header has neither sform nor qform."""
        if self.header is None or not (self.header["sform_code"] or self.header["qform_code"]):
            return None
        columns = RAS_TO_LPS @ self.affine[:3, :3]
        x, y, z = (vector(column / np.linalg.norm(column)) for column in columns.T)
        return vector(RAS_TO_LPS @ self.affine[:3, 3]), (z, y, x)


@dataclass(frozen=True)
class TiffGeometry:
    """The resolution tags as (pixels per unit in x, in y), and TIFF's code of the unit."""

    resolution: tuple[float, float] | None
    unit: int


@dataclass(frozen=True)
class ItkGeometry:
    """The shape of a MetaImage or NRRD file: (X, Y) or (X, Y, Z)."""

    shape: tuple[int, ...]


Geometry = NiftiGeometry | TiffGeometry | ItkGeometry | None


class Grid(Protocol):
    """The grid of pixels (Z, H, W).

    spacing: (z, y, x), in the file's unit. origin: position (x, y, z) of the first pixel, in mm,
    LPS. direction: unit vectors (x, y, z) along the array axes z, y and x. Both are None if the
    format has none.
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
    """The content of one file: pixels (C, Z, H, W) in its dtype, and their grid.

    shown: for masks whose stored values differ from what viewers show, such as 1-bit or gray
    palette masks: the gray of every value.
    """

    pixels: npt.NDArray[Any]
    spacing: Vector = (1.0, 1.0, 1.0)
    geometry: Geometry = None
    origin: Vector | None = None
    direction: Axes | None = None
    shown: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """Reader options. mask: read class numbers rather than colors. max_pixels: see `limits`."""

    mask: bool
    max_pixels: int | None = None


def vector(values: npt.ArrayLike) -> Vector:
    """Three numbers as Python floats."""
    x, y, z = np.asarray(values, np.float64).tolist()
    return x, y, z
