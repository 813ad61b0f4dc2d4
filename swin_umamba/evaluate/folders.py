"""Score a folder of predictions against a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from swin_umamba.data import Dataset, classes_of, read_labels, read_raw
from swin_umamba.data.formats import ending_of
from swin_umamba.errors import UserError
from swin_umamba.evaluate.scores import CaseScores, Scores, score_case
from swin_umamba.metrics.surface import Convention

SHOWN = 5  # names listed of cases that lack something


def evaluate_folder(
    predictions: Path,
    dataset: Dataset,
    *,
    names: Iterable[str] | None = None,
    tolerance: float = 2.0,
    convention: Convention = "contour",
    instances: bool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score files named like the dataset's cases, with the dataset's numbers for classes.

    names: of the cases; by default those that `predictions` holds files of. tolerance: of NSD, in
    the unit of the images' spacing (pixels where files have none). instances: whether to match
    objects of class 1 with the dataset's instance maps, by default if every case has one.
    on_progress: called with (done, all). Raises UserError, naming the file or case, for missing,
    unknown or unreadable predictions, other shapes and unknown labels.
    """
    files = _prediction_files(predictions)
    known = {case.name for case in dataset.cases if case.mask is not None}
    strangers = sorted(set(files) - known)
    if strangers:
        raise UserError(
            f"{predictions} holds predictions of no case of {dataset.name}: {_some(strangers)}"
        )
    wanted = sorted(files if names is None else set(names))
    missing = [name for name in wanted if name not in files]
    if missing:
        raise UserError(f"{predictions} lacks predictions of {_some(missing)}")
    if instances is None:
        instances = all(dataset.case(name).instances is not None for name in wanted)
    scores = []
    for done, name in enumerate(wanted, 1):
        scores.append(_score(dataset, name, files[name], tolerance, convention, instances))
        if on_progress is not None:
            on_progress(done, len(wanted))
    return Scores(tuple(dataset.labels)[1:], tolerance, convention, tuple(scores))


def _score(
    dataset: Dataset,
    name: str,
    file: Path,
    tolerance: float,
    convention: Convention,
    instances: bool,
) -> CaseScores:
    case = dataset.case(name)
    if case.mask is None:
        raise UserError(f"{name} has no mask in {dataset.folder}")
    raw = read_raw(case.images)
    target = classes_of(read_labels(case.mask, raw), dataset.values, dataset.ignore_label)
    pred = classes_of(read_labels(file, raw), dataset.values)
    objects = None
    if instances:
        if case.instances is None:
            raise UserError(f"{name} has no map of instances in {dataset.folder}")
        objects = read_labels(case.instances, raw).labels
    if convention == "release" and target.shape[0] > 1:
        raise UserError("the release's convention for NSD is for pictures, not for volumes")
    return score_case(
        name,
        pred,
        target,
        len(dataset.values),
        tolerance=tolerance,
        spacing=raw.spacing,
        convention=convention,
        instances=None if objects is None else objects.astype(np.int64),
    )


def _prediction_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"no folder of predictions at {folder}")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = ending_of(path)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name[: -len(ending)]
        if name in files:
            raise UserError(f"{folder} holds {files[name].name} and {path.name} for one case")
        files[name] = path
    if not files:
        raise UserError(f"{folder} holds no predictions")
    return files


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
