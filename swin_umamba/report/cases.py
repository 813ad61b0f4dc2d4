"""Scores and pictures of a run's validation cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba.data import Dataset, Plan, read_raw
from swin_umamba.data.datasets.grouping import files_by_stem
from swin_umamba.drawing.overlays import Canvas, png
from swin_umamba.errors import UserError
from swin_umamba.evaluate import CaseScores, Scores, evaluate_cases
from swin_umamba.evaluate.folders import labels_of, some
from swin_umamba.evaluate.held_out import predict_validation
from swin_umamba.evaluate.scores import mean_of_defined
from swin_umamba.inference.postprocessing import keep_largest
from swin_umamba.inference.sources import classes_to_clean
from swin_umamba.report.run import LoadedRun
from swin_umamba.runs.run import Run

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Picture:
    """A slice of a case as PNGs: the image, and three transparent layers of the same size."""

    case: str
    place: str  # which slice, empty for 2-D images
    dsc: float
    size: tuple[int, int]  # width, height
    image: bytes
    truth: bytes
    prediction: bytes
    errors: bytes


@dataclass(frozen=True)
class Masks:
    """Predicted masks by case name, and the classes reduced to their largest component."""

    files: dict[str, Path]
    keep_largest: tuple[int, ...] = ()


def predicted_masks(
    run: LoadedRun,
    dataset: Dataset,
    names: tuple[str, ...],
    *,
    predictions: Path | None,
    device: str,
    on_progress: OnProgress,
) -> Masks:
    """The masks of the named cases: those in `predictions`, or predictions of the best weights.

    The latter are kept in the run folder, see `predict_validation`, and get the run's
    postprocessing.
    """
    if predictions is None:
        files = predict_validation(
            run.folder,
            [dataset.case(name) for name in names],
            device=device,
            on_progress=lambda done, total: on_progress("Predicting", done, total),
        )
        return Masks(files, classes_to_clean(Run.open(run.folder)))
    files = files_by_stem(predictions)
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(f"{predictions} lacks predictions of {some(missing)}")
    return Masks({name: files[name] for name in names})


def score(masks: Masks, dataset: Dataset, on_progress: OnProgress) -> Scores:
    """The scores of the predicted masks."""
    return evaluate_cases(
        masks.files,
        dataset,
        keep_largest=masks.keep_largest,
        on_progress=lambda done, total: on_progress("Scoring", done, total),
    )


def mean_dsc(case: CaseScores) -> float:
    """Mean over the classes in ground truth or prediction; NaN if there are none."""
    return mean_of_defined(np.array(case.dsc))


def ranked(scores: Scores) -> list[CaseScores]:
    """Worst first, without those where both masks are empty."""
    return sorted((case for case in scores.cases if not math.isnan(mean_dsc(case))), key=mean_dsc)


def draw(case: CaseScores, masks: Masks, dataset: Dataset, plan: Plan) -> Picture:
    """The slice of a case with most of the ground truth, or of the prediction if there is none."""
    files = dataset.case(case.case)
    assert files.mask is not None  # the case was scored, so it has a mask
    raw = read_raw(files.images)
    found, true = labels_of(masks.files[case.case], raw, files.mask, dataset)
    found = keep_largest(found, masks.keep_largest)
    axis = plan.axis_of(raw)
    truth, prediction = (np.moveaxis(labels, axis, 0) for labels in (true, found))
    areas = [(mask > 0).sum((1, 2)) for mask in (truth, prediction)]
    at = int((areas[0] if areas[0].any() else areas[1]).argmax())
    image = np.moveaxis(raw.pixels, axis + 1, 1)[:, at]
    canvas = Canvas(image, [s for i, s in enumerate(raw.spacing) if i != axis])
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
