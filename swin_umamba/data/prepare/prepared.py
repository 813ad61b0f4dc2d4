"""Prepare a dataset for training: check it, split it, plan it, and keep it preprocessed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba.common.files import resolved
from swin_umamba.common.locks import InUseError, locked
from swin_umamba.common.partial import sweep
from swin_umamba.data.datasets.dataset import Dataset
from swin_umamba.data.datasets.opening import open_dataset
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.data.datasets.splits import ALL, Split, pick_split
from swin_umamba.data.prepare.batch_size import largest_batch
from swin_umamba.data.prepare.cache import (
    PREPARE_LOCK,
    CachedCases,
    preprocess,
    preprocessed_folder,
)
from swin_umamba.data.prepare.digests import FileDigests
from swin_umamba.data.prepare.folds import folds_of, labelled, leak_warnings
from swin_umamba.data.prepare.kept import clear_unused, remove
from swin_umamba.data.prepare.learnable import learnable
from swin_umamba.data.prepare.plan import Plan
from swin_umamba.data.prepare.state import Choices, changed_choices, load_state, state_path
from swin_umamba.data.prepare.work import OnProgress, Work, of_stage

PREPROCESSING = "Preprocessing"
WAITING = "Waiting for another process that prepares this dataset"
SOON = 0.5  # seconds, before waiting is told


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset that has been checked, with its plan and folds, whose cases lie preprocessed.

    splits: none where there are too few cases. split: the one that was asked for, or every case to
    train and to validate on. cases: those of the split, each once, in the dataset's order.
    warnings: what may be amiss, while training works. counts: of each labelled case, how many
    pixels are ignored, then how many are of each class. largest_batch: patches that a batch should
    have at most; gpu_memory: bytes to plan it for, None for all that there is.
    """

    dataset: Dataset
    plan: Plan
    splits: tuple[Split, ...]
    split: Split
    cases: CachedCases
    folder: Path
    warnings: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    largest_batch: int
    gpu_memory: int | None


def prepare_dataset(
    path: str | Path,
    choices: Choices | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    fold: int | str = ALL,
    keep: bool = False,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> PreparedDataset:
    """Check, split, plan and preprocess a dataset, or find all of that done.

    choices: by default those of the last `prepare` of this dataset; changes: fields of them to
    set; keep: whether later calls without choices find these. fold: the one to preprocess, 0, 1,
    ...; "all" takes every labelled case and looks at every fold.

    Any number of processes may call this at once, on one machine or on several that share the
    cache: one does the work, the others wait for it and read what it left.

    Raises UserError: one that lists every case that cannot be read or whose files do not fit
    together, or one for folds that cannot be, or for masks that hold nothing to learn.
    """
    dataset = open_dataset(path)
    folder = preprocessed_folder(dataset.name)
    with preparing(folder, on_progress):
        sweep(folder)
        where = state_path(folder, dataset.folder)
        state = load_state(where)
        last = Choices() if state is None else state.choices
        choices = changed_choices(last if choices is None else choices, changes or {})
        work = Work(dataset, choices, state, threads, on_progress)
        splits = folds_of(dataset, choices)
        names = labelled(dataset)
        split = pick_split(splits, fold, names)
        counts = work.counts()
        looked_at: dict[int | str, Split] = (
            {fold: split} if fold != ALL else dict(enumerate(splits))
        )
        warnings = _require_learnable(dataset, counts, looked_at)
        plan = work.plan(splits)
        warnings += leak_warnings(dataset, tuple(looked_at.values()), choices, work.digests)
        wanted = {*split.train, *split.val}
        cases = preprocess(
            dataset,
            plan,
            [name for name in names if name in wanted],
            folder,
            digests=work.digests,
            threads=threads,
            on_progress=of_stage(PREPROCESSING, on_progress),
        )
        if _takes_files(folder):
            clear_unused(folder)
        if (left := work.state(choices if keep else last)) != state and _takes_files(folder):
            left.save(where)
        largest = largest_batch(plan.patch_size, work.pixels(splits))
    return PreparedDataset(
        *(dataset, plan, splits, split, cases, folder, tuple(warnings), counts),
        largest_batch=largest,
        gpu_memory=work.memory,
    )


def cached_cases(
    dataset: Dataset,
    plan: Plan,
    names: Sequence[str],
    *,
    threads: int = 1,
    on_progress: OnProgress | None = None,
) -> CachedCases:
    """Cases preprocessed by a plan that is given, by one process at a time; see `preprocess`."""
    folder = preprocessed_folder(dataset.name)
    with preparing(folder, on_progress):
        state = load_state(state_path(folder, dataset.folder))
        digests = FileDigests(None if state is None else state.digests)
        return preprocess(
            dataset,
            plan,
            names,
            folder,
            digests=digests,
            threads=threads,
            on_progress=of_stage(PREPROCESSING, on_progress),
        )


def remove_prepared(path: str | Path) -> None:
    """Remove what is kept of a dataset, and the choices of its last `prepare`."""
    folder = preprocessed_folder(resolved(Path(path)).name)
    if folder.is_dir():
        with preparing(folder):
            for file in folder.iterdir():
                if file.name != PREPARE_LOCK:
                    remove(file)


@contextmanager
def preparing(folder: Path, on_progress: OnProgress | None = None) -> Iterator[None]:
    """Within it no other process prepares a dataset of that name; the others wait, however long.

    A cache that is there and takes no files is only read, by as many as like.
    """
    if folder.is_dir() and not _takes_files(folder):
        yield
        return
    with ExitStack() as stack:
        what = "preparation of this dataset"
        try:
            stack.enter_context(locked(folder, what, wait=SOON, name=PREPARE_LOCK))
        except InUseError:
            if on_progress is not None:
                on_progress(WAITING, 0, 1)
            stack.enter_context(locked(folder, what, wait=-1, name=PREPARE_LOCK))
        yield


def _takes_files(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _require_learnable(
    dataset: Dataset, counts: dict[str, tuple[int, ...]], folds: Mapping[int | str, Split]
) -> list[str]:
    findings = learnable(dataset, counts, folds)
    problems = Problems(dataset.folder)
    for error in findings.errors:
        problems.add(error)
    problems.raise_any()
    return list(findings.warnings)
