"""Postprocess masks: remove smaller components, which are likely errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt

from swin_umamba.common.records import Listed, Record, record
from swin_umamba.data import Plan


@record
class Postprocessing(Record):
    """What improved a run's validation scores; its postprocessing.json.

    keep_largest: mask values of the classes that are reduced to their largest component. weights:
    SHA-256 of the run's best weights at that time; None for runs of earlier versions.
    """

    WHAT: ClassVar[str] = "postprocessing"
    SCHEMA: ClassVar[int] = 2  # 1 did not name the weights

    keep_largest: Annotated[tuple[int, ...], Listed] = ()
    weights: str | None = None

    def classes(self, plan: Plan) -> tuple[int, ...]:
        """The classes of `keep_largest` by index. Raises ValueError for unknown values."""
        unknown = sorted(set(self.keep_largest).difference(plan.values[1:]))
        if unknown:
            raise ValueError(f"keep_largest: got {unknown[0]}, expected some of {plan.values[1:]}")
        return tuple(plan.values.index(value) for value in self.keep_largest)


def keep_largest(labels: npt.NDArray[Any], classes: Iterable[int]) -> npt.NDArray[Any]:
    """Class indices (Z, H, W) or (H, W) with each given class reduced to its largest component.

    Components are connected through faces, edges and corners, as in nnU-Net; the first one of ties
    is kept. Removed pixels become background. Returns a new array of the same dtype.
    """
    kept = labels.copy()
    for number in classes:
        from scipy import ndimage  # slow to import, and most runs keep all components

        found, count = ndimage.label(labels == number, np.ones((3,) * labels.ndim))
        if count > 1:
            sizes = np.bincount(found.ravel())
            sizes[0] = 0
            kept[(found > 0) & (found != sizes.argmax())] = 0
    return kept
