"""Check that two files share one grid: shape, spacing, origin and orientation, axis by axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from swin_umamba.data.io.pixels import Axes, Grid, Vector
from swin_umamba.errors import UserError

# Headers round to float32 in several ways; quaternions lose the most, in the direction.
SPACING_TOLERANCE = 1e-3  # of itself
ORIGIN_TOLERANCE = 0.1  # in pixels, along each axis
DIRECTION_TOLERANCE = 2e-3  # between unit vectors
_AXES = "zyx"
_WAYS = (("left", "right"), ("posterior", "anterior"), ("superior", "inferior"))  # LPS, + first


def require_one_grid(
    path: Path,
    grid: Grid,
    shape: tuple[int, ...],
    other: Path,
    expected: Grid,
    size: tuple[int, ...],
) -> None:
    """Raise UserError, naming both files and the axis, unless they share one grid.

    shape, size: (Z, H, W) of the two. Spacing, origin and direction may differ by header rounding.
    Formats without a position in the world are compared by shape and spacing.
    """
    if shape != size:
        raise UserError(
            f"{path} is {_size(shape)} but {other} is {_size(size)} pixels; they belong"
            " together and must have the same size"
        )
    for axis, n, here, there in zip(_AXES, shape, grid.spacing, expected.spacing, strict=True):
        # A single slice has no slice distance: picture formats say 1.
        if n > 1 and not np.isclose(here, there, rtol=SPACING_TOLERANCE, atol=0):
            raise UserError(
                f"{path} has the spacing {grid.spacing} but {other} {expected.spacing} (z, y, x);"
                f" they belong together and must have the same: axis {axis} has {here:g} and"
                f" {there:g}"
            )
    if grid.origin is None or grid.direction is None:
        return
    if expected.origin is None or expected.direction is None:
        return
    _require_direction(path, grid, other, expected, shape)
    _require_origin(path, grid.origin, other, expected.origin, expected.direction, expected.spacing)


def _require_direction(
    path: Path, grid: Grid, other: Path, expected: Grid, shape: tuple[int, ...]
) -> None:
    assert grid.direction is not None
    assert expected.direction is not None
    for i, axis in enumerate(_AXES):
        here, there = np.array(grid.direction[i]), np.array(expected.direction[i])
        # A single slice has no direction along its axis.
        if shape[i] == 1 or np.abs(here - there).max() <= DIRECTION_TOLERANCE:
            continue
        angle = np.degrees(np.arccos(np.clip(here @ there, -1, 1)))
        raise UserError(
            f"{path} and {other} have different orientations: axis {axis} runs"
            f" {_way(here)} in the one and {_way(there)} in the other ({angle:.3g} degrees apart);"
            f" {_remedy(grid, expected, shape)}"
        )


def _remedy(grid: Grid, expected: Grid, shape: tuple[int, ...]) -> str:
    if _same_place(_corners(grid, shape), _corners(expected, shape), expected.spacing):
        return (
            "both cover the same region, so only the order of the pixels differs: reorder one by"
            " its header, e.g. SimpleITK.Resample(mask, image, SimpleITK.Transform(),"
            " SimpleITK.sitkNearestNeighbor), and store both in one orientation"
        )
    return "they do not cover the same region: correct the wrong header"


def _require_origin(
    path: Path, here: Vector, other: Path, there: Vector, direction: Axes, spacing: Vector
) -> None:
    apart = np.array(here) - np.array(there)
    rounding = 1e-6 * np.abs([here, there]).max()
    for axis, along, width in zip(_AXES, direction, spacing, strict=True):
        distance = float(apart @ np.array(along))
        if abs(distance) > ORIGIN_TOLERANCE * width + rounding:
            raise UserError(
                f"{path} lies {abs(distance):.4g} mm off {other} along axis {axis} (origins"
                f" {_rounded(here)} and {_rounded(there)}); they belong together and must have the"
                " same origin: correct the wrong header, or resample one to the other"
            )


def _corners(grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """The positions (8, 3) of the corner pixels, sorted."""
    assert grid.direction is not None
    steps = np.array(grid.direction) * np.array(grid.spacing)[:, None]
    ends = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1).T
    corners: np.ndarray = np.array(grid.origin) + ends @ steps
    return corners


def _same_place(here: np.ndarray, there: np.ndarray, spacing: Vector) -> bool:
    distances = np.linalg.norm(here[:, None] - there[None], axis=2)
    return bool((distances.min(1) < ORIGIN_TOLERANCE * min(spacing) + 1e-3).all())


def _way(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    there, back = _WAYS[axis]
    towards, start = (there, back) if direction[axis] > 0 else (back, there)
    return f"{start} to {towards}"


def _rounded(place: Vector) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in place)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:] if shape[0] == 1 else shape))
