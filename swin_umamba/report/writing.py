"""Write a run's report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from swin_umamba.common.files import resolved, write_text
from swin_umamba.data import open_dataset
from swin_umamba.errors import UserError
from swin_umamba.pretrain.config import CONFIG as PRETRAINING
from swin_umamba.report.cases import OnProgress, draw, predicted_masks, ranked, score
from swin_umamba.report.folds import folds_page
from swin_umamba.report.page import Cases, page
from swin_umamba.report.pretraining import pretraining_page
from swin_umamba.report.run import LoadedRun, load_run
from swin_umamba.runs.folder import holds_run
from swin_umamba.runs.folds import REPORT, folds_of

PAGE = REPORT
SHOWN = 3  # number of best and of worst cases


def write_report(
    run: str | Path,
    output: str | Path | None = None,
    *,
    dataset: str | Path | None = None,
    predictions: str | Path | None = None,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Path:
    """Write one self-contained HTML page; return its path.

    run: a run folder, finished or not. output: the page, by default report.html in the run folder.
    dataset: where the run's dataset is now, if it was moved. predictions: a folder with masks of
    the validation cases; by default the best weights predict them into the run folder. device: for
    these predictions. on_progress: called with (what, done, total). A run that was not trained from
    a dataset gets a page without cases. A folder with fold runs gets a page with the
    cross-validation table, and each fold a page of its own in its folder. A pretraining's page has
    its curves and scores.

    Raises UserError, naming the file, for anything missing, damaged or not writable.
    """
    if holds_run(Path(run), PRETRAINING):
        return _written(pretraining_page(Path(run)), Path(run), output)
    folds = () if holds_run(Path(run)) else folds_of(Path(run))
    if folds:
        if predictions is not None:
            raise UserError(f"predictions: {run} holds folds, each of which has its own")
        for fold in folds:
            write_report(fold, dataset=dataset, device=device, on_progress=on_progress)
        return _write_folds(Path(run), folds, None if output is None else Path(output))
    loaded = load_run(Path(run))
    target = loaded.folder / PAGE if output is None else Path(output)
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected a file for the page")
    cases = _cases(
        loaded,
        None if dataset is None else Path(dataset),
        None if predictions is None else Path(predictions),
        device,
        on_progress or (lambda what, done, total: None),
    )
    write_text(target, page(loaded, cases))
    return target


def _written(content: str, folder: Path, output: str | Path | None) -> Path:
    target = folder / PAGE if output is None else Path(output)
    if target.is_dir():
        raise UserError(f"{target} is a folder, expected a file for the page")
    write_text(target, content)
    return target


def _write_folds(folder: Path, folds: Sequence[Path], output: Path | None) -> Path:
    start = resolved(folder / PAGE if output is None else output).parent
    pages = {
        fold.name: Path(os.path.relpath(resolved(fold / PAGE), start)).as_posix() for fold in folds
    }
    return _written(folds_page(folder, pages), folder, output)


def _cases(
    run: LoadedRun,
    dataset_folder: Path | None,
    predictions: Path | None,
    device: str,
    on_progress: OnProgress,
) -> Cases | None:
    plan, split = run.plan, run.split
    if plan is None or split is None or run.config.dataset is None:
        return None
    if dataset_folder is None:
        dataset_folder = Path(run.config.dataset)
        if not dataset_folder.is_dir():
            raise UserError(
                f"the run's dataset is no longer at {dataset_folder}; name its folder (dataset)"
            )
    dataset = open_dataset(dataset_folder)
    if not split.val:
        return None
    masks = predicted_masks(
        run,
        dataset,
        split.val,
        predictions=predictions,
        device=device,
        on_progress=on_progress,
    )
    scores = score(masks, dataset, on_progress)
    order = ranked(scores)
    few = len(order) <= 2 * SHOWN
    worst = order if few else order[:SHOWN]
    best = [] if few else order[: -SHOWN - 1 : -1]
    pictures = [[draw(case, masks, dataset, plan) for case in group] for group in (worst, best)]
    cleaned = tuple(list(dataset.labels)[number] for number in masks.keep_largest)
    return Cases(scores, order, worst=pictures[0], best=pictures[1], cleaned=cleaned)
