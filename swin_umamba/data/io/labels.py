"""Mask values: whole, in range, and mapped to classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.pixels import Axes, Geometry, Vector
from swin_umamba.errors import UserError

IGNORED = -1
ROUNDING = 1e-3  # tolerance for integers that a header scales
_UNKNOWN = -2
_LISTED = 5


@dataclass(frozen=True)
class RawLabels:
    """A map of integers (Z, H, W) int64 as stored in its file; other fields as in RawImage.

    shown: for 1-, 2- and 4-bit masks and masks with a gray palette, the gray that viewers show for
    each value: white is 1 as stored in 1 bit and 255 as shown. `classes_of` uses whichever matches.
    """

    labels: npt.NDArray[np.int64]
    spacing: Vector
    path: Path
    geometry: Geometry
    origin: Vector | None = None
    direction: Axes | None = None
    shown: tuple[int, ...] | None = None

    def numbers(self) -> set[int]:
        """The distinct values."""
        return set(np.unique(self.labels).tolist())

    def as_shown(self) -> npt.NDArray[np.int64]:
        """The labels as viewers show them."""
        if self.shown is None:
            return self.labels
        labels: npt.NDArray[np.int64] = np.asarray(self.shown, np.int64)[self.labels]
        return labels


def whole_numbers(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    """Values of any real dtype as int64. Raises UserError, naming the file and a value, for others.

    Floats are rounded if all of them are within 1e-3 of an integer.
    """
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = np.rint(values)
            wrong = ~np.isfinite(values) | (np.abs(values - whole) > ROUNDING)
        if wrong.any():
            raise UserError(
                f"{path} holds {values.dtype}, expected whole numbers: {values[wrong][0]} is"
                f" more than {ROUNDING:g} from a whole number and is not rounded"
            )
        values = whole
    if values.dtype.kind != "b":
        if values.min() < 0:
            raise UserError(
                f"{path} holds negative numbers ({values.min()}), expected 0 for the background"
                " and above"
            )
        # For floats: 2^63 itself is the first value that does not fit.
        if values.max() >= 2**63:
            raise UserError(f"{path} holds the label {values.max()}, expected at most 2^63 - 1")
    return values.astype(np.int64)


def classes_of(
    raw: RawLabels, values: Sequence[int], ignore_label: int | None = None
) -> npt.NDArray[np.int64]:
    """The class of every pixel, (Z, H, W): the index of its value in `values`, -1 where ignored.

    Raises UserError, naming the file and the value, for any other value.
    """
    known = {value: number for number, value in enumerate(values)}
    if ignore_label is not None:
        known[ignore_label] = IGNORED
    labels = _fitting(raw, known)
    numbers = np.array(sorted(known), np.int64)
    meaning = np.array([known[number] for number in numbers.tolist()], np.int64)
    # Binary search rather than a lookup table: values may be arbitrarily large.
    places = np.minimum(np.searchsorted(numbers, labels), len(numbers) - 1)
    classes = np.where(numbers[places] == labels, meaning[places], _UNKNOWN)
    if classes.min() == _UNKNOWN:
        found = np.unique(labels[classes == _UNKNOWN])
        expected = ", ".join(map(str, numbers.tolist()))
        shown = "" if raw.shown is None else f" (shown as {_some(raw.shown[i] for i in found)})"
        raise UserError(
            f"{raw.path} holds the label {_some(found)}{shown}, expected one of {expected}"
        )
    return classes


def _fitting(raw: RawLabels, known: Iterable[int]) -> npt.NDArray[np.int64]:
    """The labels as stored, or as shown if only those are known."""
    if raw.shown is None:
        return raw.labels
    known, stored = set(known), raw.numbers()
    shown = {raw.shown[number] for number in stored}
    if stored == shown or not shown <= known:
        return raw.labels
    if stored <= known:
        raise _unclear(raw.path, stored, shown, known)
    return raw.as_shown()


class Numbers:
    """Collects the values of a set of masks, mask by mask.

    For masks with few bits or a gray palette, viewers show values other than the stored ones; they
    are interpreted in the way that matches the other masks.
    """

    def __init__(self) -> None:
        self._plain: set[int] = {0}
        self._unclear: list[tuple[Path, set[int], set[int]]] = []

    def add(self, raw: RawLabels) -> None:
        """Add a mask."""
        stored = raw.numbers()
        shown = stored if raw.shown is None else {raw.shown[number] for number in stored}
        if stored == shown:
            self._plain |= stored
        elif not any(known[1:] == (stored, shown) for known in self._unclear):
            self._unclear.append((raw.path, stored, shown))

    def __len__(self) -> int:
        """A lower bound of the number of values."""
        return max([len(self._plain), *(len(stored) for _, stored, _ in self._unclear)])

    def values(self) -> tuple[int, ...]:
        """All values, ascending, including 0. Raises UserError, naming the mask, if it is
        ambiguous."""
        plain = self._plain
        values = set(plain)
        for path, stored, shown in self._unclear:
            likeness = [len((numbers & plain) - {0}) for numbers in (stored, shown)]
            if plain != {0} and likeness[0] == likeness[1]:
                raise _unclear(path, stored, shown, plain)
            values |= shown if likeness[1] > likeness[0] else stored
        return tuple(sorted(values))


def _unclear(path: Path, stored: set[int], shown: set[int], known: set[int]) -> UserError:
    return UserError(
        f"{path} has fewer than 8 bits or a palette: its values are {_some(sorted(stored))}, shown"
        f" as {_some(sorted(shown))}, and which of them is meant is not clear beside"
        f" {_some(sorted(known))}: store it with 8 bits of gray like the other masks"
    )


def _some(numbers: Iterable[Any]) -> str:
    listed = [str(number) for number in numbers]
    return ", ".join(listed[:_LISTED]) + (", ..." if len(listed) > _LISTED else "")
