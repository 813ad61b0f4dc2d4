"""How well a segmentation agrees with the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dice(pred: npt.ArrayLike, target: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.float64]:
    """Dice similarity coefficient of every class but the background, of one image.

    pred, target: class indices of one shape, integers. num_classes counts the background, so the
    result is (num_classes - 1,) float64 in 0..1: NaN for a class that neither holds, 0 for one
    that only one of them holds.
    """
    pred, target = np.asarray(pred), np.asarray(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred: got shape {pred.shape}, expected {target.shape} as in target")
    for name, labels in (("pred", pred), ("target", target)):
        if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != np.bool_:
            raise TypeError(f"{name}: got {labels.dtype}, expected integer class indices")
    if num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes}, expected at least 2")
    scores = np.full(num_classes - 1, np.nan)
    for label in range(1, num_classes):
        in_pred, in_target = pred == label, target == label
        total = np.count_nonzero(in_pred) + np.count_nonzero(in_target)
        if total:
            scores[label - 1] = 2 * np.count_nonzero(in_pred & in_target) / total
    return scores
