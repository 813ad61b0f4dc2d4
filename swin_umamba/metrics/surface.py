"""Normalized surface Dice (NSD)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from swin_umamba.metrics.labels import Labels, checked

Convention = Literal["contour", "release"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def normalized_surface_dice(
    pred: npt.ArrayLike,
    target: npt.ArrayLike,
    num_classes: int,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    convention: Convention = "contour",
) -> npt.NDArray[np.float64]:
    """Fraction of both surfaces within `tolerance` of the other, for each class but 0.

    pred, target: class indices of the same shape, (H, W) or (Z, H, W), integers. tolerance: in the
    unit of `spacing`, the distance of neighbors along each axis (default 1, pixels). convention:
    "contour" measures along contours and surfaces between pixels; "release" first extends (H, W)
    masks to a thickness of one voxel, as the original implementation does, so that their whole area
    counts as surface and scores are higher. Returns (num_classes - 1,) float64: NaN for a class in
    neither map, 0 for a class in only one of them.
    """
    pred, target = checked(pred, target, num_classes)
    if pred.ndim not in (2, 3):
        raise ValueError(f"pred: got shape {pred.shape}, expected (H, W) or (Z, H, W)")
    if not tolerance >= 0:
        raise ValueError(f"tolerance: got {tolerance}, expected 0 or above")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: got {convention!r}, expected {' or '.join(CONVENTIONS)}")
    if convention == "release" and pred.ndim != 2:
        raise ValueError(f"convention: 'release' is for (H, W) masks, got shape {pred.shape}")
    distances = [1.0] * pred.ndim if spacing is None else [float(s) for s in spacing]
    if len(distances) != pred.ndim or min(distances) <= 0:
        raise ValueError(f"spacing: got {spacing}, expected {pred.ndim} numbers above 0")
    if convention == "release":
        pred, target, distances = pred[..., None], target[..., None], [*distances, 1.0]
    return np.array(
        [
            _of_class(pred == label, target == label, tolerance, distances)
            for label in range(1, num_classes)
        ]
    )


def _of_class(pred: Labels, target: Labels, tolerance: float, spacing: list[float]) -> float:
    if not pred.any() and not target.any():
        return float("nan")
    if not pred.any() or not target.any():
        return 0.0
    from monai.metrics.surface_dice import compute_surface_dice

    # Crop what both lack, since MONAI's time depends on the mask size. A margin stays, so that
    # surfaces at the crop are unchanged.
    box = tuple(
        slice(max(int(at.min()) - 2, 0), int(at.max()) + 3) for at in np.nonzero(pred | target)
    )
    near_pred, near_target = (
        torch.from_numpy(np.ascontiguousarray(m[box]))[None, None] for m in (pred, target)
    )
    with warnings.catch_warnings():
        # MONAI warns about an argument that it sets itself.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        score = compute_surface_dice(
            near_pred,
            near_target,
            class_thresholds=[tolerance],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
    return float(score.item())
