"""The cases that a run was not trained on, and its predictions for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from swin_umamba.data import CaseFiles
from swin_umamba.errors import UserError
from swin_umamba.inference.files import predict_cases
from swin_umamba.inference.predictor import Predictor
from swin_umamba.inference.targets import MASKS_ALONE, Targets
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import holds_run
from swin_umamba.runs.folds import folds_of
from swin_umamba.runs.run import Run

VALIDATION = "validation"  # their masks, in the run folder

OnProgress = Callable[[int, int], None]


def held_out(folder: Path) -> tuple[str, ...]:
    """The names of cases that a run validated on without training on them.

    Warns of cases that the runs it started from may have been trained on. Raises UserError if there
    are none, as with fold "all", and for a folder of several folds, each of which has its own.
    """
    folds = folds_of(folder)
    if folds:
        raise UserError(
            f"{folder} holds runs of several folds, each with its own held-out cases: name one of"
            f" them, as {folds[0]}"
        )
    run = Run.open(folder)
    if run.split is None:
        raise UserError(f"{folder} was not trained from a dataset: its held-out cases are unknown")
    trained = set(run.split.train)
    names = tuple(name for name in run.split.val if name not in trained)
    if not names:
        raise UserError(
            f"{folder} was trained on all its cases (fold {run.config.fold}): none is held out"
        )
    for remark in remarks_on_sources(names, run.config):
        warnings.warn(remark, stacklevel=2)
    return names


def remarks_on_sources(names: Sequence[str], config: TrainConfig) -> list[str]:
    """Which runs that a run started from were trained on some of the cases, one sentence each.

    config: of the run; its weights may be another run's, which may have continued from a third one.
    """
    found: list[str] = []
    passed: set[Path] = set()
    source = _source_of(config)
    while source is not None and source not in passed:
        passed.add(source)
        if not holds_run(source):
            found.append(
                f"{source}, which the training continued from, is no longer there: it may have been"
                " trained on the validation cases"
            )
            break
        run = Run.open(source)
        seen = set(names).intersection(run.split.train if run.split else ())
        if seen:
            found.append(
                f"{len(seen)} of {len(names)} validation cases have the names of cases that"
                f" {source} was trained on: if they are the same, their scores do not tell how well"
                " new cases are segmented"
            )
        source = _source_of(run.config)
    return found


def _source_of(config: TrainConfig) -> Path | None:
    """The folder of the run whose weights a run started from, None for other weights."""
    if config.continue_from is not None:
        return Path(config.continue_from)
    folder = None if config.pretrained is None else Path(config.pretrained).parent
    return folder if folder is not None and holds_run(folder) else None


def predict_validation(
    folder: Path,
    cases: Sequence[CaseFiles],
    *,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> dict[str, Path]:
    """Masks of cases by a run's best weights, without postprocessing; files by case name.

    They are stored in the run folder with a record of their origin, and reused if the same weights
    made them in the same way from the same images. Raises UserError for unreadable images.
    """
    masks = folder / VALIDATION
    outcome = predict_cases(
        Predictor.from_run(folder, device=device, postprocessing=False),
        cases,
        masks,
        replace_others=True,
        on_progress=on_progress,
    )
    for reason in outcome.failed.values():
        raise UserError(reason)
    return {case.name: Targets.of(case, masks, MASKS_ALONE).mask for case in cases}
