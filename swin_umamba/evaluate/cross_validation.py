"""Cross-validation scores: every case by the model that was not trained on it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import write_text
from swin_umamba.data import Dataset
from swin_umamba.errors import UserError
from swin_umamba.evaluate.folders import TOLERANCE, evaluate_cases
from swin_umamba.evaluate.held_out import held_out, predict_validation
from swin_umamba.evaluate.postprocessing import find_postprocessing, save_postprocessing
from swin_umamba.evaluate.scores import Scores, mean_of_defined
from swin_umamba.inference.postprocessing import Postprocessing
from swin_umamba.runs.folds import CROSS_VALIDATION, folds_of

MEAN = "mean"  # used in place of a class

OnProgress = Callable[[str, int, int], None]
"""Called with the current phase, the number of cases done and the total."""


@dataclass(frozen=True)
class Row:
    """One metric of one class, or of `MEAN`, the mean over the classes.

    folds: mean over the cases of each fold, NaN if none contains the class. over_cases: mean over
    all cases of all folds. over_folds, deviation: of the folds' means; the deviation is NaN for a
    single fold.
    """

    metric: str
    name: str
    folds: tuple[float, ...]
    over_cases: float
    over_folds: float
    deviation: float


@dataclass(frozen=True)
class CrossValidation:
    """The scores of each fold by name, and the postprocessing determined on all of them."""

    scores: Mapping[str, Scores]
    postprocessing: Postprocessing

    def together(self) -> Scores:
        """All cases of all folds."""
        first = next(iter(self.scores.values()))
        cases = tuple(case for scores in self.scores.values() for case in scores.cases)
        return Scores(first.classes, first.tolerance, cases)

    def rows(self) -> list[Row]:
        """All metrics of each class, followed by their means."""
        whole, rows = self.together(), []
        for metric in whole.metrics():
            table = np.array([_means(scores, metric) for scores in self.scores.values()])
            means = _means(whole, metric)
            rows += [
                _row(metric, name, table[:, i], means[i])
                for i, name in enumerate(whole.names(metric))
            ]
            if len(means) > 1:
                folds = np.array([mean_of_defined(row) for row in table])
                rows.append(_row(metric, MEAN, folds, mean_of_defined(means)))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain values, with null for undefined scores."""
        return {
            "schema": 1,
            "folds": list(self.scores),
            "rows": [
                {
                    "metric": row.metric,
                    "class": row.name,
                    "folds": [_plain(value) for value in row.folds],
                    "mean_over_cases": _plain(row.over_cases),
                    "mean_over_folds": _plain(row.over_folds),
                    "sd_over_folds": _plain(row.deviation),
                }
                for row in self.rows()
            ],
            "keep_largest": list(self.postprocessing.keep_largest),
            "scores": {name: scores.to_json() for name, scores in self.scores.items()},
        }


def cross_validate(
    folder: Path,
    dataset: Dataset,
    *,
    device: str = "auto",
    tolerance: float = TOLERANCE,
    on_progress: OnProgress | None = None,
) -> CrossValidation:
    """Predict each fold's held-out cases, score them, and determine the postprocessing.

    folder: contains the fold runs. Existing masks are used. Scores are without postprocessing; the
    helpful postprocessing is written into every fold's run, and the table into `folder`. Raises
    UserError if there are no folds, or if runs, images or masks cannot be read.
    """
    files: dict[str, Path] = {}
    scores = {}
    for path in _runs(folder):

        def show(what: str, name: str = path.name) -> Callable[[int, int], None] | None:
            if on_progress is None:
                return None
            return lambda done, total: on_progress(f"{what} {name}", done, total)

        found = predict_validation(
            path,
            [dataset.case(case) for case in held_out(path)],
            device=device,
            on_progress=show("Predicting"),
        )
        scores[path.name] = evaluate_cases(
            found, dataset, tolerance=tolerance, on_progress=show("Scoring")
        )
        files |= found
    result = CrossValidation(scores, find_postprocessing(files, dataset))
    for path in _runs(folder):
        save_postprocessing(result.postprocessing, path)
    text = json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n"
    write_text(folder / CROSS_VALIDATION, text)
    return result


def _runs(folder: Path) -> Sequence[Path]:
    runs = folds_of(folder)
    if not runs:
        raise UserError(f"{folder} holds no runs of folds (fold_0, fold_1, ...)")
    return runs


def _means(scores: Scores, metric: str) -> npt.NDArray[np.float64]:
    return np.array([mean for _, mean, _ in scores.means(metric)], np.float64)


def _row(metric: str, name: str, folds: npt.NDArray[np.float64], over_cases: float) -> Row:
    defined = folds[~np.isnan(folds)]
    deviation = float(defined.std(ddof=1)) if defined.size > 1 else math.nan
    return Row(
        metric, name, tuple(folds.tolist()), float(over_cases), mean_of_defined(folds), deviation
    )


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
