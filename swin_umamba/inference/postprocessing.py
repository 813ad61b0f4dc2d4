"""What is done to masks after the network: smaller components, likely errors, are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from swin_umamba.common.records import Listed, Record, record
from swin_umamba.data import Plan


@record
class Postprocessing(Record):
    """What a run found to help on its validation cases; its postprocessing.json.

    keep_largest: the values, in masks, of classes of which only the largest component stays.
    """

    WHAT: ClassVar[str] = "postprocessing"

    keep_largest: Annotated[tuple[int, ...], Listed] = ()

    def classes(self, plan: Plan) -> tuple[int, ...]:
        """The classes of `keep_largest` by their indices. Raises ValueError for unknown values."""
        unknown = sorted(set(self.keep_largest).difference(plan.values[1:]))
        if unknown:
            raise ValueError(f"keep_largest: got {unknown[0]}, expected some of {plan.values[1:]}")
        return tuple(plan.values.index(value) for value in self.keep_largest)


def keep_largest(labels: npt.NDArray[Any], classes: Iterable[int]) -> npt.NDArray[Any]:
    """Class indices (Z, H, W) or (H, W) where of each given class only the largest component stays.

    Components are connected through faces, edges and corners, as in nnU-Net; of equally large ones
    the first stays. What is removed becomes background. Returns a new array of the same dtype.
    """
    kept = labels.copy()
    for number in classes:
        found, count = ndimage.label(labels == number, np.ones((3,) * labels.ndim))
        if count > 1:
            sizes = np.bincount(found.ravel())
            sizes[0] = 0
            kept[(found > 0) & (found != sizes.argmax())] = 0
    return kept
