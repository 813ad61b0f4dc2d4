"""Convert the inputs of a predictor to images of its plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data import Plan, read_raw
from swin_umamba.data.io.raw import RawImage
from swin_umamba.errors import UserError

ImageLike = npt.NDArray[Any] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | RawImage
"""Pixels (C, H, W) or (C, Z, H, W), a file, the channels' files, or a result of `read_raw`."""

Spacing = float | Sequence[float] | None

_ARRAY = Path("the array")  # name used in errors


def as_raw(image: ImageLike, plans: Sequence[Plan], spacing: Spacing) -> RawImage:
    """The image with its spacing. Raises UserError for invalid arrays and files.

    plans: of the models that are to segment it. spacing: of an array, one number, or one per axis
    without the channels, where the slice axis may be omitted; by default the plans' own, so that
    nothing is resampled.
    """
    if isinstance(image, np.ndarray):
        _require_one_meaning(image, plans, spacing)
        return _of_array(image, plans[0], spacing)
    if spacing is not None:
        raise ValueError("spacing: applies to arrays only; files have their own")
    if isinstance(image, RawImage):
        return image
    if isinstance(image, str | os.PathLike):
        return read_raw(Path(image))
    return read_raw([Path(path) for path in image])


def _require_one_meaning(image: npt.NDArray[Any], plans: Sequence[Plan], spacing: Spacing) -> None:
    """Raise UserError for an array that says too little where the models' plans differ."""
    axes, spacings = {plan.axis for plan in plans}, {plan.spacing for plan in plans}
    if image.ndim == 3 and len(axes) > 1:
        raise UserError(
            f"image: got {image.shape}, expected a volume (C, Z, H, W), since the models take"
            f" slices along different axes of it: {sorted(axes)}"
        )
    if spacing is None and len(spacings) > 1:
        raise UserError(
            "spacing: got None, expected that of the array, since the models' plans have different"
            f" ones: {sorted(spacings)}"
        )


def _of_array(image: npt.NDArray[Any], plan: Plan, spacing: Spacing) -> RawImage:
    if image.ndim not in (3, 4) or 0 in image.shape or image.dtype.kind not in "buif":
        raise UserError(
            f"image: got {image.dtype} {image.shape}, expected real numbers (C, H, W) or"
            " (C, Z, H, W)"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError("image: contains NaN or infinite pixels")
    pixels = image[:, None] if image.ndim == 3 else image
    return RawImage(pixels, _spacing(spacing, plan, image.ndim - 1), (_ARRAY,), None)


def _spacing(given: Spacing, plan: Plan, axes: int) -> tuple[float, float, float]:
    """(z, y, x), with 1 along the slices if unknown; of a single slice, z is the slicing axis."""
    try:
        values = [float(v) for v in (plan.spacing if given is None else np.atleast_1d(given))]
    except (TypeError, ValueError):
        values = []
    if len(values) == 1:
        values = values * axes
    if len(values) == 2:
        values.insert(0 if axes == 2 else plan.axis, 1.0)
    elif len(values) == 3 and axes == 2:
        values.insert(0, values.pop(plan.axis))
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        expected = "two or three numbers" if axes == 2 else "three numbers"
        raise UserError(f"spacing: got {given!r}, expected {expected} above 0")
    return values[0], values[1], values[2]


def without_slice_axis(found: npt.NDArray[Any], image: ImageLike) -> npt.NDArray[Any]:
    """(..., Z, H, W), or (..., H, W) for an array (C, H, W) and for files with one slice."""
    if isinstance(image, np.ndarray):
        return found if image.ndim == 4 else np.squeeze(found, -3)
    if isinstance(image, RawImage) or found.shape[-3] > 1:
        return found
    return np.squeeze(found, -3)
