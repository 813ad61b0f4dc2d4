"""F1 of separate objects, such as nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class InstanceScores:
    """Objects found (tp), made up (fp) and missed (fn); the ratios are NaN where they divide 0."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def instance_f1(
    pred_foreground: npt.ArrayLike,
    target_instances: npt.ArrayLike,
    iou: float = 0.5,
    border: int = 2,
) -> InstanceScores:
    """Match predicted objects to true ones, each at most once, by their overlap.

    pred_foreground: (H, W), not 0 inside objects: class 1, the interior, of a three-class map. It
    is split into 8-connected objects. target_instances: (H, W) integers, 0 or the number of an
    object. iou: intersection over union from which a pair counts. border: objects with a pixel
    this near an edge of the image are left out of both, as cut off; 0 keeps all.
    """
    foreground, target = np.asarray(pred_foreground), np.asarray(target_instances)
    if foreground.ndim != 2 or foreground.shape != target.shape:
        raise ValueError(
            f"pred_foreground, target_instances: got shapes {foreground.shape}, {target.shape},"
            " expected (H, W) twice"
        )
    if not np.issubdtype(target.dtype, np.integer):
        raise TypeError(f"target_instances: got {target.dtype}, expected integers")
    if not 0 < iou <= 1:
        raise ValueError(f"iou: got {iou}, expected above 0 and at most 1")
    if border < 0:
        raise ValueError(f"border: got {border}, expected 0 or above")
    objects = instance_map(foreground)
    overlap = _overlaps(_without_border(objects, border), _without_border(target, border))
    tp = _matches(overlap, iou)
    return InstanceScores(tp, overlap.shape[0] - tp, overlap.shape[1] - tp)


def instance_map(foreground: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The 8-connected objects of what is not 0 in (H, W), numbered from 1; 0 is what is around."""
    from scipy import ndimage

    objects: npt.NDArray[np.int32]
    objects, _ = ndimage.label(foreground != 0, structure=np.ones((3, 3)))
    return objects


def _without_border(objects: npt.NDArray[Any], border: int) -> npt.NDArray[Any]:
    edge = np.ones(objects.shape, bool)
    edge[border : objects.shape[0] - border, border : objects.shape[1] - border] = False
    return np.where(np.isin(objects, np.unique(objects[edge])), 0, objects)


def _overlaps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intersection over union of every object of a with every one of b."""
    (a_numbers, a_index), (b_numbers, b_index) = (
        np.unique(m.ravel(), return_inverse=True) for m in (a, b)
    )
    both = np.zeros((len(a_numbers), len(b_numbers)))
    np.add.at(both, (a_index, b_index), 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    ratios: npt.NDArray[np.float64] = (both / union)[a_numbers != 0][:, b_numbers != 0]
    return ratios


def _matches(overlap: npt.NDArray[np.float64], iou: float) -> int:
    """The most pairs that can be made, of those the ones that overlap most."""
    from scipy.optimize import linear_sum_assignment

    if not overlap.size:
        return 0
    enough = overlap >= iou
    rows, columns = linear_sum_assignment(-(1.0 * enough + overlap / (2 * min(overlap.shape))))
    return int(enough[rows, columns].sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
