"""Prepare a dataset for training: check, split, plan, and preprocess it into the cache."""

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
SOON = 0.5  # seconds before the user is notified of waiting


@dataclass(frozen=True)
class PreparedDataset:
    """A checked dataset with its plan and folds, and its preprocessed cases.

    splits: empty if there are too few cases. split: the requested one, or every case for training
    and validation. cases: those of the split, each once, in dataset order. warnings: possible
    problems that do not prevent training. counts: for each labeled case, the number of ignored
    pixels, then of pixels of each class. largest_batch: maximum sensible batch size; gpu_memory:
    bytes to plan it for, None for all there is.
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
    """Check, split, plan and preprocess a dataset, or reuse cached results.

    choices: by default those of the last `prepare` of this dataset; changes: fields to override;
    keep: whether to store them for later calls without choices. fold: the one to preprocess, 0, 1,
    ...; "all" uses every labeled case and checks every fold.

    Any number of processes may call this at once, on one machine or several that share the cache:
    one does the work, the others wait for it and read its result.

    Raises one UserError that lists every unreadable or inconsistent case, or one about impossible
    folds or masks that contain nothing to learn.
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
    """Preprocess cases by a given plan, in one process at a time; see `preprocess`."""
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
    """Remove a dataset's cached data, and the choices of its last `prepare`."""
    folder = preprocessed_folder(resolved(Path(path)).name)
    if folder.is_dir():
        with preparing(folder):
            for file in folder.iterdir():
                if file.name != PREPARE_LOCK:
                    remove(file)


@contextmanager
def preparing(folder: Path, on_progress: OnProgress | None = None) -> Iterator[None]:
    """Prevent other processes from preparing a dataset of that name; they wait without limit.

    An existing read-only cache is only read, by any number of processes.
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
