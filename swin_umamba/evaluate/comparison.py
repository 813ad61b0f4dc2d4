"""Whether one set of predictions is better than another, case by case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swin_umamba.errors import UserError
from swin_umamba.evaluate.scores import Scores

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """Mean of (first - second) over the cases that both define, with its 95 % interval."""

    metric: str
    name: str
    mean: float
    low: float
    high: float
    cases: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def compare(first: Scores, second: Scores, *, seed: int = 0) -> list[Difference]:
    """Paired differences of every metric and class, with percentile bootstrap over cases.

    Both of the same cases and classes, else UserError. One generator of `seed` draws the cases.
    """
    if [c.case for c in first.cases] != [c.case for c in second.cases]:
        raise UserError("the two folders hold predictions of different cases")
    if first.classes != second.classes:
        raise UserError("the two sets of scores are of different classes")
    rng = np.random.default_rng(seed)
    found = []
    for metric in first.metrics():
        names = ("objects",) if metric == "f1" else first.classes
        delta = first.values(metric) - second.values(metric)
        for name, column in zip(names, delta.T, strict=True):
            paired = column[~np.isnan(column)]
            if not paired.size:
                continue
            draws = rng.choice(paired, (RESAMPLES, paired.size)).mean(1)
            low, high = np.percentile(draws, [2.5, 97.5])
            found.append(
                Difference(metric, name, float(paired.mean()), float(low), float(high), paired.size)
            )
    return found
