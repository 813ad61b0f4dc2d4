"""Volumes as the sampler sees them: slices, and the positions of each class."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swin_umamba.data.sampling.case import Case

# As in nnU-Net: maximum positions kept per class and volume, and minimum fraction of them.
POSITIONS_PER_CLASS, POSITIONS_SHARE = 10_000, 0.01
# The key for all annotated pixels, if some are not.
ANNOTATED = 0

# (n, 3) int32, sorted by the first column: key, slice, flat index in the slice. Keys from 1 are the
# classes, or the regions in their order.
Positions = npt.NDArray[np.int32]


class Volume(Protocol):
    """One or more slices of one image, in memory or on disk; 2-D images have one.

    masked: the channels whose statistics use nonzero pixels only, and which stay 0 elsewhere.
    """

    masked: tuple[int, ...]

    @property
    def slices(self) -> int: ...

    @property
    def channels(self) -> set[int]:
        """Channel counts of the slices: a single number if consistent."""
        ...

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """A slice (C, H, W)."""
        ...

    def mask(self, index: int) -> npt.NDArray[Any]:
        """Class indices (H, W) of a slice in a signed integer dtype, -1 where unannotated."""
        ...

    def positions(self) -> Positions: ...


class VolumeInMemory:
    """A volume of cases; see Volume."""

    masked: tuple[int, ...] = ()

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases
        masks = [case.mask for case in cases]
        annotated = any((mask < 0).any() for mask in masks)
        self._positions = find_positions(masks, cases[0].volume, annotated=annotated)

    @property
    def slices(self) -> int:
        return len(self._cases)

    @property
    def channels(self) -> set[int]:
        return {case.image.shape[0] for case in self._cases}

    def image(self, index: int) -> npt.NDArray[np.float32]:
        return self._cases[index].image

    def mask(self, index: int) -> npt.NDArray[Any]:
        return self._cases[index].mask

    def positions(self) -> Positions:
        return self._positions


def volumes_of(cases: Sequence[Case]) -> list[Volume]:
    """The cases grouped by volume, in order of first appearance."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.volume, []).append(case)
    return [VolumeInMemory(group) for group in groups.values()]


def find_positions(
    masks: Sequence[npt.NDArray[Any]],
    name: str,
    *,
    regions: Sequence[Sequence[int]] | None = None,
    annotated: bool = False,
) -> Positions:
    """Positions for centering patches: up to 10,000 random pixels, or 1 %, of each class above 0.

    masks: class indices of the slices. regions: for region-based labels, the classes that make up
    each region, used instead of the classes. annotated: whether to also sample pixels of any class,
    background included, under the key `ANNOTATED`. Deterministic for a given name.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    parts = [np.empty((0, 3), np.int32)]
    if annotated:
        parts.append(_drawn(ANNOTATED, [mask >= 0 for mask in masks], rng))
    if regions is not None:
        for key, classes in enumerate(regions, 1):
            parts.append(_drawn(key, [np.isin(mask, classes) for mask in masks], rng))
        return np.concatenate(parts)
    present = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)))
    for label in present:
        if label > 0:
            parts.append(_drawn(label, [mask == label for mask in masks], rng))
    return np.concatenate(parts)


def _drawn(
    key: int, areas: Sequence[npt.NDArray[np.bool_]], rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Random pixels of an area in slices, sorted."""
    places = [np.flatnonzero(area).astype(np.int32) for area in areas]
    total = sum(map(len, places))
    rows = np.empty((total, 3), np.int32)
    rows[:, 0] = key
    rows[:, 1] = np.repeat(np.arange(len(places)), [len(part) for part in places])
    rows[:, 2] = np.concatenate(places) if places else 0
    wanted = max(POSITIONS_PER_CLASS, math.ceil(total * POSITIONS_SHARE))
    if total > wanted:
        rows = rows[np.sort(rng.choice(total, wanted, replace=False))]
    return rows
