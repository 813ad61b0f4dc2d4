"""DICOM, through pydicom: one file, or a folder with the slices of one series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.dicom_files import dataset_of, files_in, mixed
from swin_umamba.data.io.limits import VOLUME_PIXELS, check_spacing, damage_named, require_pixels
from swin_umamba.data.io.pixels import Axes, FilePixels, Reading, Vector, vector
from swin_umamba.errors import UserError

_FRAME = 1 << 14  # minimum number of pixels that a frame counts for
_UNEVEN = 0.01  # as a fraction of the distance between slices
_TILT = 1e-2  # as a fraction of the step between slices, sideways


def read(path: Path, reading: Reading) -> FilePixels:
    """An image as (C, Z, H, W) in rescaled values (Hounsfield units in CT), not reoriented.

    Slices of a folder, and frames of a file, are sorted by their position along the normal.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError

    with damage_named(path, InvalidDicomError, BytesLengthException):
        most = reading.max_pixels
        slices = _series(path, most) if path.is_dir() else _frames(path, most)
        _require_alike(slices, path)
        size = (slices[0].rows, slices[0].columns, slices[0].samples, len(slices))
        require_pixels(path, math.prod(size), VOLUME_PIXELS, most)
        slices, step = _sorted(slices, path)
        decoded: dict[int, npt.NDArray[Any]] = {}
        stack = np.stack([_pixels(one, decoded) for one in slices], axis=1)
    first = slices[0]
    spacing = check_spacing((step or first.thickness, *first.pixel_spacing), path)
    if first.position is None or first.along is None:
        return FilePixels(stack, spacing)
    x, y = first.along
    direction: Axes = (vector(np.cross(x, y)), y, x)
    return FilePixels(stack, spacing, None, first.position, direction)


@dataclass(frozen=True)
class _Slice:
    """One slice: frame `frame` of `dataset`, and its position. along: unit vectors of x and y."""

    path: Path
    dataset: Any
    frame: int
    rows: int
    columns: int
    samples: int
    pixel_spacing: tuple[float, float]
    thickness: float
    position: Vector | None
    along: tuple[Vector, Vector] | None
    slope: float
    intercept: float

    def height(self) -> float:
        """The position along the normal."""
        assert self.position is not None
        assert self.along is not None
        return float(np.cross(*self.along) @ np.array(self.position))


def _series(folder: Path, max_pixels: int | None) -> list[_Slice]:
    from pydicom.errors import InvalidDicomError

    slices: list[_Slice] = []
    series: dict[str, Path] = {}
    for path in files_in(folder):
        with damage_named(path, InvalidDicomError):
            frames = _frames(path, max_pixels, others=True)
        if frames:
            series.setdefault(str(frames[0].dataset.get("SeriesInstanceUID", "")), path)
            slices += frames
    if not slices:
        raise UserError(f"{folder} holds no DICOM images")
    if len(series) > 1:
        raise UserError(mixed(folder, list(series.values())))
    return slices


def _frames(path: Path, max_pixels: int | None, others: bool = False) -> list[_Slice]:
    """The slices of a file. others: whether to skip files without an image (reports, DICOMDIR)."""
    dataset = dataset_of(path)
    if "PixelData" not in dataset or "Rows" not in dataset:
        if others:
            return []
        raise UserError(f"{path} holds no image: its DICOM class is {_class_of(dataset)}")
    number = int(dataset.get("NumberOfFrames", 1) or 1)
    if number < 1:
        raise UserError(f"{path} has {number} frames, expected at least 1")
    # A slice object is created for each frame before any pixels are read.
    pixels = number * max(int(dataset.Rows) * int(dataset.Columns), 1)
    require_pixels(path, max(pixels, number * _FRAME), VOLUME_PIXELS, max_pixels)
    return [_slice(path, dataset, frame, number) for frame in range(number)]


def _class_of(dataset: Any) -> str:
    uid = dataset.get("SOPClassUID")
    return str(getattr(uid, "name", uid))


def _slice(path: Path, dataset: Any, frame: int, frames: int) -> _Slice:
    def stated(group: str, key: str) -> Any:
        """An element of this frame, of all frames, or of the file."""
        for groups, at in (
            ("PerFrameFunctionalGroupsSequence", frame),
            ("SharedFunctionalGroupsSequence", 0),
        ):
            items = dataset.get(groups) or []
            inner = items[at].get(group) if len(items) > at else None
            if inner and inner[0].get(key) is not None:
                return inner[0].get(key)
        return dataset.get(key)

    spacing = stated("PixelMeasuresSequence", "PixelSpacing") or dataset.get("ImagerPixelSpacing")
    thickness = stated("PixelMeasuresSequence", "SliceThickness")
    position = stated("PlanePositionSequence", "ImagePositionPatient")
    along = stated("PlaneOrientationSequence", "ImageOrientationPatient")
    slope = stated("PixelValueTransformationSequence", "RescaleSlope")
    intercept = stated("PixelValueTransformationSequence", "RescaleIntercept")
    axes = None
    if along is not None and position is not None:
        x, y = vector(along[:3]), vector(along[3:])
        if not np.allclose([np.dot(x, x), np.dot(y, y), np.dot(x, y)], [1, 1, 0], atol=1e-3):
            raise UserError(f"{path} has the orientation {list(along)}, expected two unit vectors")
        axes = (x, y)
    return _Slice(
        path,
        dataset,
        frame if frames > 1 else -1,
        int(dataset.Rows),
        int(dataset.Columns),
        int(dataset.get("SamplesPerPixel", 1)),
        (float(spacing[0]), float(spacing[1])) if spacing else (1.0, 1.0),
        float(thickness or dataset.get("SpacingBetweenSlices") or 1.0),
        vector(position) if axes is not None else None,
        axes,
        float(1 if slope is None else slope),
        float(0 if intercept is None else intercept),
    )


def _require_alike(slices: Sequence[_Slice], path: Path) -> None:
    first = slices[0]
    for one in slices:
        for what, here, there in (
            ("size", (one.rows, one.columns), (first.rows, first.columns)),
            ("samples of a pixel", (one.samples,), (first.samples,)),
            ("pixel spacing", one.pixel_spacing, first.pixel_spacing),
            ("orientation", np.ravel(one.along or 0), np.ravel(first.along or 0)),
        ):
            if len(here) != len(there) or not np.allclose(here, there, rtol=1e-4, atol=1e-4):
                raise UserError(
                    f"{one.path} and {first.path.name} have different {what}: {list(here)} and"
                    f" {list(there)}; all slices of a volume must agree"
                )


def _sorted(slices: list[_Slice], path: Path) -> tuple[list[_Slice], float | None]:
    """Sort by position along the normal, with the slice distance; unchanged without positions."""
    if len(slices) == 1:
        return slices, None
    if any(one.position is None for one in slices):
        if slices[0].frame < 0:
            raise UserError(
                f"{path} holds slices without a position (ImagePositionPatient): their order is"
                " unknown; give each its own file"
            )
        return slices, None
    slices = sorted(slices, key=_Slice.height)
    steps = np.diff([one.height() for one in slices])
    step = float(np.median(steps))
    for i, distance in enumerate(steps):
        if abs(distance - step) > _UNEVEN * step or step <= 0:
            raise UserError(
                f"{path}: the slices {slices[i].path.name} and {slices[i + 1].path.name} are"
                f" {distance:.4g} mm apart, others {step:.4g}: slices are missing, or the folder"
                " holds more than one volume"
            )
    ends = np.array(slices[-1].position) - np.array(slices[0].position)
    normal = np.cross(*(slices[0].along or ((1, 0, 0), (0, 1, 0))))
    if np.linalg.norm(ends - (ends @ normal) * normal) > _TILT * np.linalg.norm(ends):
        raise UserError(f"{path} was taken with a tilted gantry: resample it to a straight volume")
    return slices, step


def _pixels(one: _Slice, decoded: dict[int, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """(C, H, W) in rescaled values, with white as the highest, in RGB."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    dataset = one.dataset
    if id(dataset) not in decoded:
        stored = pixel_array(dataset)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            stored = apply_color_lut(stored, dataset)
        decoded[id(dataset)] = stored
    pixels = decoded[id(dataset)]
    pixels = pixels if one.frame < 0 else pixels[one.frame]
    pixels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        highest = -1 if pixels.dtype.kind == "i" else 2 ** int(dataset.BitsStored) - 1
        pixels = (highest - pixels.astype(np.int64)).astype(pixels.dtype)
    if (one.slope, one.intercept) == (1, 0):
        return pixels
    if one.slope.is_integer() and one.intercept.is_integer():
        return (pixels.astype(np.int64) * int(one.slope) + int(one.intercept)).astype(np.int32)
    return (pixels * one.slope + one.intercept).astype(np.float32)
