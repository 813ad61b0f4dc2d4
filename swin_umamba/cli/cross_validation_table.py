"""The cross-validation table on the console."""

from __future__ import annotations

import math

from rich.table import Table

from swin_umamba.evaluate import METRICS
from swin_umamba.evaluate.cross_validation import CrossValidation


def table(found: CrossValidation) -> Table:
    """One row per metric and class: the means of the folds, and the mean over all cases."""
    made = Table(title=f"Cross-validation, {len(found.together().cases)} held-out cases")
    for column in ("metric", "class"):
        made.add_column(column)
    for column in (*found.scores, "mean over cases", "mean of folds"):
        made.add_column(column, justify="right")
    for row in found.rows():
        spread = "" if math.isnan(row.deviation) else f" ± {row.deviation:.3f}"
        made.add_row(
            METRICS[row.metric],
            row.name,
            *map(_number, row.folds),
            _number(row.over_cases),
            f"{_number(row.over_folds)}{spread}",
        )
    return made


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
