"""Volumes as the sampler sees them: slices, and where each class is found."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swin_umamba.data.sampling.case import Case

# As nnU-Net: so many pixels of each class speak for a volume.
POSITIONS_PER_CLASS = 10_000

# (n, 3) int32, sorted by the first: class, slice, flat place in the slice.
Positions = npt.NDArray[np.int32]


class Volume(Protocol):
    """One or more slices of one image, in memory or on disk; 2-D images have one."""

    @property
    def slices(self) -> int: ...

    @property
    def channels(self) -> set[int]:
        """How many the slices have: one number, if all is well."""
        ...

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """A slice (C, H, W)."""
        ...

    def mask(self, index: int) -> npt.NDArray[Any]:
        """Its class indices (H, W) in a signed integer dtype, -1 where there is no truth."""
        ...

    def positions(self) -> Positions: ...


class VolumeInMemory:
    """A volume of cases; see Volume."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases
        self._positions = find_positions([case.mask for case in cases], cases[0].volume)

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
    """The cases grouped by their volumes, in the order in which these come first."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.volume, []).append(case)
    return [VolumeInMemory(group) for group in groups.values()]


def find_positions(masks: Sequence[npt.NDArray[Any]], name: str) -> Positions:
    """Where the classes above 0 are, up to 10,000 random pixels of each; the same for one name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found: dict[int, list[npt.NDArray[np.int32]]] = {}
    for index, mask in enumerate(masks):
        flat = np.flatnonzero(mask > 0)
        labels = mask.ravel()[flat]
        for label in np.unique(labels).tolist():
            places = flat[labels == label]
            columns = (np.full_like(places, label), np.full_like(places, index), places)
            found.setdefault(label, []).append(np.stack(columns, axis=1).astype(np.int32))
    parts = [np.empty((0, 3), np.int32)]
    for label in sorted(found):
        rows = np.concatenate(found[label])
        if len(rows) > POSITIONS_PER_CLASS:
            rows = rows[np.sort(rng.choice(len(rows), POSITIONS_PER_CLASS, replace=False))]
        parts.append(rows)
    return np.concatenate(parts)
