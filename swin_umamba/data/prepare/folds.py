"""The folds of a dataset, as requested by the user, and warnings about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from swin_umamba.data.datasets.dataset import Dataset
from swin_umamba.data.datasets.groups import (
    group_by_rule,
    leaking_groups,
    likely_clips,
    read_groups,
)
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.data.datasets.splits import Split, make_splits, read_splits
from swin_umamba.data.io.formats import files_of
from swin_umamba.data.prepare.digests import FileDigests
from swin_umamba.data.prepare.state import Choices


def folds_of(dataset: Dataset, choices: Choices) -> tuple[Split, ...]:
    """The folds of the labeled cases; none if there are fewer than two cases.

    Raises UserError for unreadable files, splits with unknown cases, and groups that a splits file
    does not keep together.
    """
    names = labelled(dataset)
    groups = _groups(names, choices)
    if choices.splits is None:
        return () if len(names) < 2 else make_splits(names, folds=choices.folds, groups=groups)
    splits = read_splits(choices.splits)
    problems = Problems(choices.splits)
    for number, split in enumerate(splits):
        for name in sorted({*split.train, *split.val} - set(names)):
            problems.add(f"fold {number} names the case {name!r}, which {dataset.folder} lacks")
    problems.raise_any()
    for number, split in enumerate(splits):
        if groups is not None and split.held_out:
            for group in leaking_groups(groups, split.train, split.val):
                problems.add(f"fold {number} trains and validates on cases of the group {group!r}")
    problems.raise_any()
    return splits


def labelled(dataset: Dataset) -> tuple[str, ...]:
    """The names of the cases that have a mask."""
    return tuple(case.name for case in dataset.cases if case.mask is not None)


def trained_on(dataset: Dataset, splits: Sequence[Split]) -> tuple[str, ...]:
    """The cases that at least one fold trains on, in dataset order: all, in a cross-validation."""
    some = {name for split in splits for name in split.train}
    names = labelled(dataset)
    return tuple(name for name in names if name in some) if splits else names


def leak_warnings(
    dataset: Dataset, splits: Sequence[Split], choices: Choices, digests: FileDigests
) -> list[str]:
    """Warnings about data on both sides of a fold: identical images, or frames of one clip."""
    found = []
    apart = [split for split in splits if split.held_out]
    for first, *others in _same_images(dataset, digests):
        if any(_mixed((first, *others), split) for split in apart):
            found.append(
                f"the images of {first!r} and {', '.join(map(repr, others))} are identical, and a"
                " fold trains on one and validates on another: give them one group (--groups)"
            )
    if choices.groups is None and choices.group_by is None:
        clips = likely_clips(labelled(dataset))
        if clips is not None and any(leaking_groups(clips, s.train, s.val) for s in apart):
            members = defaultdict(list)
            for name, clip in clips.items():
                members[clip].append(name)
            pair = next(group for group in members.values() if len(group) > 1)
            found.append(
                f"the cases' names look like frames of {len(members)} clips or patients, as"
                f" {pair[0]!r} and {pair[1]!r}, and folds mix them, which inflates scores: if"
                " they are, keep them together by --groups FILE or --group-by REGEX"
            )
    return found


def _groups(names: Sequence[str], choices: Choices) -> Mapping[str, str] | None:
    if choices.groups is not None:
        return read_groups(Path(choices.groups), names)
    if choices.group_by is not None:
        return group_by_rule(choices.group_by, names)
    return None


def _same_images(dataset: Dataset, digests: FileDigests) -> list[tuple[str, ...]]:
    """Cases whose images are identical, byte by byte."""
    members: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for case in dataset.cases:
        if case.mask is not None:
            parts = (part for path in case.images for part in files_of(path))
            members[tuple(map(digests.of, parts))].append(case.name)
    return [tuple(names) for names in members.values() if len(names) > 1]


def _mixed(names: Sequence[str], split: Split) -> bool:
    return bool(set(names) & set(split.train)) and bool(set(names) & set(split.val))
