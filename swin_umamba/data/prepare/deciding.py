"""From a network's probabilities to labels: mutually exclusive classes, or regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

THRESHOLD = 0.5


def decide_classes(probabilities: npt.NDArray[Any], axis: int) -> npt.NDArray[np.int64]:
    """The most probable class along an axis; the first one of ties."""
    found: npt.NDArray[np.int64] = probabilities.argmax(axis)
    return found


def decide_regions(
    probabilities: npt.NDArray[Any], written: Sequence[int], axis: int
) -> npt.NDArray[np.int64]:
    """The class written by each region with probability above 0.5, later regions over earlier ones;
    0 elsewhere.

    written: for each region, in the order of the outputs along the axis.
    """
    regions = np.moveaxis(probabilities, axis, 0)
    labels = np.zeros(regions.shape[1:], np.int64)
    for region, label in zip(regions, written, strict=True):
        labels[region > THRESHOLD] = label
    return labels


def decide_tensor(probabilities: Tensor, written: Sequence[int] | None, axis: int) -> Tensor:
    """`decide_regions`, or without `written` `decide_classes`, on a tensor's own device."""
    if written is None:
        return probabilities.argmax(axis)
    regions = probabilities.movedim(axis, 0)
    labels = torch.zeros(regions.shape[1:], dtype=torch.int64, device=regions.device)
    for region, label in zip(regions, written, strict=True):
        labels.masked_fill_(region > THRESHOLD, label)
    return labels


def check_regions(
    regions: Sequence[Sequence[int]] | None,
    names: Sequence[str],
    order: Sequence[int] | None,
    values: Sequence[int],
) -> None:
    """Raise ValueError, naming the plan's field, for inconsistent regions."""
    if regions is not None and not (regions and all(regions)):
        raise ValueError(f"regions: got {regions!r}, expected None, or values in each of some")
    number = len(regions or ())
    if (regions is None) != (order is None) or len(order or ()) != number:
        raise ValueError(
            f"regions_class_order: got {order!r}, expected one value for each of regions"
            f" {regions!r}"
        )
    if len(names) != number:
        raise ValueError(f"region_names: got {names!r}, expected one for each region")
    listed = {value for region in regions or () for value in region}
    for field, found in (("regions", listed), ("regions_class_order", set(order or ()))):
        unknown = sorted(found - set(values))
        if unknown:
            raise ValueError(f"{field}: got {unknown[0]}, expected some of {tuple(values)}")
