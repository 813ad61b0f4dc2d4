"""Training and validation cases of each fold, in the format of nnU-Net's splits_final.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba.common.files import write_text
from swin_umamba.common.jsons import load_json
from swin_umamba.errors import UserError

FOLDS = 5
SEED = 12345
ALL = "all"  # the fold that trains and validates on every case


@dataclass(frozen=True)
class Split:
    """The case names of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether no validation case is used in training; with fold "all" every one is."""
        return not set(self.train) & set(self.val)


def make_splits(
    names: Sequence[str],
    *,
    folds: int = FOLDS,
    seed: int = SEED,
    groups: Mapping[str, str] | None = None,
) -> tuple[Split, ...]:
    """Cross-validation folds; with the defaults, nnU-Net's folds for the same names.

    groups: the group of each name; a group is never split, and folds have about equal numbers of
    cases. With fewer cases, or groups, than folds there are as many folds as cases or groups.
    Raises UserError for fewer than 2.
    """
    if folds < 2:
        raise ValueError(f"folds: got {folds}, expected at least 2")
    ordered = sorted(names)
    if groups is None or len({groups[name] for name in ordered}) == len(ordered):
        parts = _shuffled_parts(ordered, folds, seed)
    else:
        parts = _grouped_parts(ordered, groups, folds, seed)
    return tuple(
        Split(
            tuple(name for name in ordered if name not in val),
            tuple(name for name in ordered if name in val),
        )
        for val in parts
    )


def _shuffled_parts(ordered: list[str], folds: int, seed: int) -> list[set[str]]:
    """scikit-learn's shuffled KFold: a legacy shuffle, then contiguous folds."""
    if len(ordered) < 2:
        raise UserError(_too_few(ordered))
    places = np.arange(len(ordered))
    np.random.RandomState(seed).shuffle(places)
    parts = np.array_split(places, min(folds, len(ordered)))
    return [{ordered[place] for place in part} for part in parts]


def _too_few(names: Sequence[str]) -> str:
    return (
        f"got {len(names)} labeled case{'s' * (len(names) != 1)}, expected 2 or more to train and"
        f" to validate on; fold {ALL!r} trains and validates on the same cases"
    )


def _grouped_parts(
    ordered: list[str], groups: Mapping[str, str], folds: int, seed: int
) -> list[set[str]]:
    """Each group goes into the smallest part so far, largest groups first, ties shuffled."""
    members: dict[str, list[str]] = {}
    for name in ordered:
        members.setdefault(groups[name], []).append(name)
    if len(members) < 2:
        (only,) = members
        raise UserError(
            f"all {len(ordered)} cases are of the group {only!r}, expected 2 groups or more to"
            " train and to validate on"
        )
    queue = sorted(members)
    np.random.RandomState(seed).shuffle(queue)
    queue.sort(key=lambda group: -len(members[group]))
    parts: list[set[str]] = [set() for _ in range(min(folds, len(members)))]
    for group in queue:
        min(parts, key=len).update(members[group])
    return parts


def pick_split(splits: Sequence[Split], fold: int | str, names: Sequence[str]) -> Split:
    """Fold 0, 1, ...; "all" trains and validates on every case, as in nnU-Net.

    Raises UserError for a fold that does not exist, and for names that are not in `names`.
    """
    if fold == ALL:
        everything = tuple(sorted(names))
        return Split(everything, everything)
    if not splits:
        raise UserError(_too_few(names))
    if not (isinstance(fold, int) or fold.isdecimal()) or not 0 <= int(fold) < len(splits):
        raise UserError(f"fold: got {fold!r}, expected 0 to {len(splits) - 1} or 'all'")
    split = splits[int(fold)]
    unknown = sorted({*split.train, *split.val} - set(names))
    if unknown:
        raise UserError(f"fold {fold} names the case {unknown[0]!r}, which the dataset lacks")
    return split


def read_splits(path: str | Path) -> tuple[Split, ...]:
    """Read [{"train": [names], "val": [names]}, ...].

    Raises UserError, naming the file, if it is missing, damaged, or a case is in both parts.
    """
    entries = load_json(path, "splits")
    splits = []
    try:
        for entry in entries:
            parts = [entry["train"], entry["val"]]
            if not all(isinstance(p, list) and all(isinstance(n, str) for n in p) for p in parts):
                raise TypeError("names are not a list of strings")
            splits.append(Split(tuple(parts[0]), tuple(parts[1])))
    except (TypeError, KeyError) as error:
        raise UserError(
            f'{path} is not [{{"train": [names], "val": [names]}}, ...]: {error}'
        ) from error
    if not splits:
        raise UserError(f"{path} holds no folds")
    for number, split in enumerate(splits):
        both = sorted(set(split.train) & set(split.val))
        if both and set(split.train) != set(split.val):
            raise UserError(f"{path}: fold {number} has {both[0]!r} in train and in val")
        if not split.train:
            raise UserError(f"{path}: fold {number} has no cases to train on")
    return tuple(splits)


def splits_json(splits: Sequence[Split]) -> str:
    """The inverse of `read_splits`, as text."""
    entries = [{"train": list(split.train), "val": list(split.val)} for split in splits]
    return json.dumps(entries, indent=2) + "\n"


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write atomically what `read_splits` reads."""
    write_text(path, splits_json(splits))
