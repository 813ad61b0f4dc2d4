"""Scores and pictures of the cases that a run validated on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba.data import Dataset, Plan, classes_of, read_labels, read_raw
from swin_umamba.data.datasets.grouping import files_by_stem
from swin_umamba.drawing.overlays import Canvas, png
from swin_umamba.errors import UserError
from swin_umamba.evaluate import CaseScores, Scores, evaluate_cases
from swin_umamba.evaluate.folders import some
from swin_umamba.evaluate.scores import mean_of_defined
from swin_umamba.inference.files import predict_cases
from swin_umamba.inference.predictor import Predictor
from swin_umamba.report.run import Run

VALIDATION = "validation"  # the masks that a report predicted, in the run's folder

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Picture:
    """A slice of a case in PNG: the image, and three transparent layers of its size."""

    case: str
    place: str  # which slice, empty for pictures
    dsc: float
    size: tuple[int, int]  # width, height
    image: bytes
    truth: bytes
    prediction: bytes
    errors: bytes


def predicted_files(
    run: Run,
    dataset: Dataset,
    names: tuple[str, ...],
    *,
    predictions: Path | None,
    device: str,
    on_progress: OnProgress,
) -> dict[str, Path]:
    """The masks of the named cases: those in `predictions`, or the best weights' own.

    The latter lie in the run's folder, and are made anew unless these very weights made them.
    """
    folder = predictions
    if folder is None:
        folder = run.folder / VALIDATION
        _predict(run, dataset, names, folder, device, on_progress)
    files = files_by_stem(folder)
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(f"{folder} lacks predictions of {some(missing)}")
    return {name: files[name] for name in names}


def _predict(
    run: Run,
    dataset: Dataset,
    names: tuple[str, ...],
    folder: Path,
    device: str,
    on_progress: OnProgress,
) -> None:
    outcome = predict_cases(
        Predictor.from_run(run.folder, device=device),
        [dataset.case(name) for name in names],
        folder,
        replace_others=True,
        on_progress=lambda done, total: on_progress("Predicting", done, total),
    )
    for reason in outcome.failed.values():
        raise UserError(reason)


def score(files: dict[str, Path], dataset: Dataset, on_progress: OnProgress) -> Scores:
    """The scores of the predicted masks."""
    return evaluate_cases(
        files, dataset, on_progress=lambda done, total: on_progress("Scoring", done, total)
    )


def mean_dsc(case: CaseScores) -> float:
    """Over the classes that truth or prediction hold; NaN if there are none."""
    return mean_of_defined(np.array(case.dsc))


def ranked(scores: Scores) -> list[CaseScores]:
    """Worst first, without those where there is nothing to find and nothing was found."""
    return sorted((case for case in scores.cases if not math.isnan(mean_dsc(case))), key=mean_dsc)


def draw(case: CaseScores, file: Path, dataset: Dataset, plan: Plan) -> Picture:
    """The slice of a case that holds most of the truth, or of the prediction if there is none."""
    files = dataset.case(case.case)
    assert files.mask is not None  # it was scored
    raw = read_raw(files.images)
    truth, prediction = (
        np.moveaxis(classes_of(read_labels(path, raw), dataset.values, ignore), plan.axis, 0)
        for path, ignore in ((files.mask, dataset.ignore_label), (file, None))
    )
    areas = [(mask > 0).sum((1, 2)) for mask in (truth, prediction)]
    at = int((areas[0] if areas[0].any() else areas[1]).argmax())
    image = np.moveaxis(raw.pixels, plan.axis + 1, 1)[:, at]
    canvas = Canvas(image, [s for i, s in enumerate(raw.spacing) if i != plan.axis])
    return Picture(
        case.case,
        f"slice {at + 1} of {len(truth)}" if len(truth) > 1 else "",
        mean_dsc(case),
        canvas.size,
        png(canvas.input()),
        png(canvas.classes(truth[at])),
        png(canvas.classes(prediction[at])),
        png(canvas.errors(truth[at], prediction[at])),
    )
