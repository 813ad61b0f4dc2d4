"""From a network's probabilities to labels: classes that exclude each other, or regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.5


def decide_classes(probabilities: npt.NDArray[Any], axis: int) -> npt.NDArray[np.int64]:
    """The most probable class along an axis; of equal ones the first."""
    found: npt.NDArray[np.int64] = probabilities.argmax(axis)
    return found


def decide_regions(
    probabilities: npt.NDArray[Any], written: Sequence[int], axis: int
) -> npt.NDArray[np.int64]:
    """The class that each region above 0.5 writes, later regions over earlier ones; 0 elsewhere.

    written: of each region, in the order of the outputs along the axis.
    """
    regions = np.moveaxis(probabilities, axis, 0)
    labels = np.zeros(regions.shape[1:], np.int64)
    for region, label in zip(regions, written, strict=True):
        labels[region > THRESHOLD] = label
    return labels
