"""Compare two sets of predictions case by case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swin_umamba.errors import UserError
from swin_umamba.evaluate.folders import some
from swin_umamba.evaluate.scores import Scores

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean of (first - second) over the cases for which both are defined, with a 95 % interval."""

    metric: str
    name: str
    mean: float
    low: float
    high: float
    cases: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def compare(first: Scores, second: Scores, *, seed: int = 0) -> list[Difference]:
    """Paired differences for every metric and class, with percentile bootstrap over cases.

    A case counts if both scores are defined.

    Both must have the same cases and classes, else UserError. A single generator with `seed`
    resamples the cases.
    """
    cases = {c.case for c in first.cases} ^ {c.case for c in second.cases}
    if cases:
        raise UserError(f"only one of the two folders holds predictions of {some(sorted(cases))}")
    if first.classes != second.classes:
        raise UserError("the two sets of scores are of different classes")
    if first.tolerance != second.tolerance:
        raise ValueError(f"second: got a tolerance of {second.tolerance}, not {first.tolerance}")
    rng = np.random.default_rng(seed)
    found = []
    for metric in first.metrics():
        delta = first.values(metric) - second.values(metric)
        for name, column in zip(first.names(metric), delta.T, strict=True):
            paired = column[~np.isnan(column)]
            if not paired.size:
                continue
            draws = rng.choice(paired, (RESAMPLES, paired.size)).mean(1)
            low, high = np.percentile(draws, [2.5, 97.5])
            found.append(
                Difference(metric, name, float(paired.mean()), float(low), float(high), paired.size)
            )
    return found
