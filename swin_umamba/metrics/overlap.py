"""The Dice similarity coefficient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swin_umamba.metrics.labels import checked


def dice(pred: npt.ArrayLike, target: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float64]:
    """Dice similarity coefficient of every class but the background, of one image or volume.

    pred, target: class indices of the same shape, integers. num_classes includes the background, so
    the result is (num_classes - 1,) float64 in 0..1: NaN for a class in neither map, 0 for a class
    in only one of them.
    """
    pred, target = checked(pred, target, num_classes)
    scores = np.full(num_classes - 1, np.nan)
    for label in range(1, num_classes):
        in_pred, in_target = pred == label, target == label
        total = np.count_nonzero(in_pred) + np.count_nonzero(in_target)
        if total:
            scores[label - 1] = 2 * np.count_nonzero(in_pred & in_target) / total
    return scores
