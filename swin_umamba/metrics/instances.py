"""F1 of separate objects, such as nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class InstanceScores:
    """Objects found (tp), spurious (fp) and missed (fn); ratios are NaN for a denominator of 0."""

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

    pred_foreground: (H, W), nonzero inside objects: class 1, the interior, of a three-class map. It
    is split into 8-connected objects. target_instances: (H, W) integers, 0 or an object's number.
    iou: minimum intersection over union of a matching pair. border: objects with a pixel this close
    to an image edge are excluded from both, as cut off; 0 keeps all.
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
    pairs = _overlaps(_without_border(objects, border), _without_border(target, border))
    tp = _matches(pairs, iou)
    return InstanceScores(tp, pairs.shape[0] - tp, pairs.shape[1] - tp)


def instance_map(foreground: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The 8-connected objects of nonzero pixels in (H, W), numbered from 1; 0 is background."""
    from scipy import ndimage

    objects: npt.NDArray[np.int32]
    objects, _ = ndimage.label(foreground != 0, structure=np.ones((3, 3)))
    return objects


def _without_border(objects: npt.NDArray[Any], border: int) -> npt.NDArray[Any]:
    edge = np.ones(objects.shape, bool)
    edge[border : objects.shape[0] - border, border : objects.shape[1] - border] = False
    return np.where(np.isin(objects, np.unique(objects[edge])), 0, objects)


@dataclass(frozen=True)
class _Overlaps:
    """Pairs of objects that share a pixel: far fewer than all pairs."""

    shape: tuple[int, int]  # objects of each side
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    ratios: npt.NDArray[np.float64]  # intersection over union


def _overlaps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> _Overlaps:
    """Intersection over union of the objects of a with the objects of b that they overlap."""
    (a_numbers, a_index, a_sizes), (b_numbers, b_index, b_sizes) = (
        np.unique(m.ravel(), return_inverse=True, return_counts=True) for m in (a, b)
    )
    pairs, both = np.unique(a_index * np.int64(len(b_numbers)) + b_index, return_counts=True)
    rows, columns = np.divmod(pairs, len(b_numbers))
    inside = (a_numbers[rows] != 0) & (b_numbers[columns] != 0)
    rows, columns, both = rows[inside], columns[inside], both[inside]
    # Renumbered without the background, which comes first if present.
    first = (int((a_numbers == 0).sum()), int((b_numbers == 0).sum()))
    below = [(numbers < 0).sum() for numbers in (a_numbers, b_numbers)]
    return _Overlaps(
        (len(a_numbers) - first[0], len(b_numbers) - first[1]),
        rows - first[0] * (rows > below[0]),
        columns - first[1] * (columns > below[1]),
        both / (a_sizes[rows] + b_sizes[columns] - both),
    )


def _matches(overlaps: _Overlaps, iou: float) -> int:
    """The maximum number of pairs of sufficiently overlapping objects."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    enough = overlaps.ratios >= iou
    if not enough.any():
        return 0
    places = (overlaps.rows[enough], overlaps.columns[enough])
    graph = csr_array((np.ones(len(places[0]), np.int8), places), overlaps.shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
