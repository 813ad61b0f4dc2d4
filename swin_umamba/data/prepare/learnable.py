"""Check that every class, and every fold, contains something to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swin_umamba.data.datasets.dataset import Dataset
from swin_umamba.data.datasets.splits import Split

Counts = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Findings:
    """errors: nothing can be learned. warnings: some classes cannot be learned or scored."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def learnable(dataset: Dataset, counts: Counts, folds: Mapping[int | str, Split]) -> Findings:
    """Find classes and folds without a pixel.

    counts: for each labeled case, the number of ignored pixels, then of pixels of each class.
    folds: those to be trained, by number.
    """
    ignored, *_ = whole = _pixels(counts, list(counts))
    every = whole[1:]
    if not every.sum():
        return Findings((f"{dataset.folder}: every pixel of every mask is ignored",), ())
    if not every[1:].sum():
        where = "0 everywhere" + (" or ignored" if ignored else "")
        return Findings(
            (f"{dataset.folder}: all {len(counts)} masks are {where}: nothing to learn",), ()
        )
    errors = []
    for number, split in folds.items():
        if not _pixels(counts, split.train)[2:].sum():
            errors.append(
                f"fold {number}: the masks of its {len(split.train)} training cases are 0"
                " everywhere: nothing to learn"
            )
    if errors:
        return Findings(tuple(errors), ())
    names = sorted(dataset.labels, key=dataset.labels.__getitem__)
    warnings = []
    for label, name in enumerate(names):
        said = f"class {name!r} ({dataset.values[label]})"
        if not every[label]:
            warnings.append(f"{said} has no pixel in any mask: it cannot be learned")
        elif label:
            warnings += _missing_in_folds(said, label, counts, folds)
    everything = [name for name in counts if not sum(counts[name][1:])]
    if everything:
        warnings.append(
            f"{len(everything)} of {len(counts)} cases are ignored everywhere: {_some(everything)}"
        )
    return Findings((), tuple(warnings))


def _missing_in_folds(
    said: str, label: int, counts: Counts, folds: Mapping[int | str, Split]
) -> list[str]:
    at = label + 1
    untrained = [i for i, split in folds.items() if not _pixels(counts, split.train)[at]]
    unscored = [i for i, split in folds.items() if split.val and not _pixels(counts, split.val)[at]]
    found = []
    if untrained:
        found.append(
            f"{said} has no pixel in the training cases of {_listed(untrained)}: it cannot be"
            " learned there"
        )
    if unscored:
        found.append(
            f"{said} has no pixel in the validation cases of {_listed(unscored)}: it is not"
            " scored there"
        )
    return found


def _pixels(counts: Counts, names: Sequence[str]) -> npt.NDArray[np.int64]:
    width = len(next(iter(counts.values())))
    rows = np.array([counts[name] for name in names], np.int64).reshape(-1, width)
    total: npt.NDArray[np.int64] = rows.sum(0)
    return total


def _listed(folds: Sequence[int | str]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"


def _some(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
