"""Validation of pairs of class index maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[Any]


def checked(pred: npt.ArrayLike, target: npt.ArrayLike, num_classes: int) -> tuple[Labels, Labels]:
    """Both as integer arrays of the same shape. Raises ValueError or TypeError."""
    pred, target = np.asarray(pred), np.asarray(target)
    if pred.shape != target.shape:
        raise ValueError(f"pred: got shape {pred.shape}, expected {target.shape} as in target")
    for name, labels in (("pred", pred), ("target", target)):
        if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != np.bool_:
            raise TypeError(f"{name}: got {labels.dtype}, expected integer class indices")
    if num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes}, expected at least 2")
    return pred, target
