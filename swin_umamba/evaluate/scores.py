"""The scores of cases, and their means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.metrics import InstanceScores, dice, instance_f1, normalized_surface_dice
from swin_umamba.metrics.surface import Convention


@dataclass(frozen=True)
class CaseScores:
    """One case: a value a class, NaN where neither mask holds it; objects where asked for."""

    case: str
    dsc: tuple[float, ...]
    nsd: tuple[float, ...]
    instances: InstanceScores | None = None


@dataclass(frozen=True)
class Scores:
    """All cases. classes: their names, without the background. tolerance: of NSD, in the unit of
    the images' spacing."""

    classes: tuple[str, ...]
    tolerance: float
    convention: str
    cases: tuple[CaseScores, ...]

    def values(self, metric: str) -> npt.NDArray[np.float64]:
        """(cases, classes) of "dsc" or "nsd"; (cases, 1) of "f1"."""
        if metric == "f1":
            return np.array([[c.instances.f1 if c.instances else math.nan] for c in self.cases])
        return np.array([getattr(case, metric) for case in self.cases], np.float64)

    def metrics(self) -> tuple[str, ...]:
        with_objects = any(case.instances for case in self.cases)
        return ("dsc", "nsd", "f1") if with_objects else ("dsc", "nsd")

    def means(self, metric: str) -> list[tuple[str, float, int]]:
        """Name, mean over the cases where it is defined, and how many those are; NaN for none."""
        names = ("objects",) if metric == "f1" else self.classes
        rows = []
        for name, column in zip(names, self.values(metric).T, strict=True):
            defined = column[~np.isnan(column)]
            rows.append((name, float(defined.mean()) if defined.size else math.nan, defined.size))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain values, with null where a score is not defined."""
        return {
            "classes": list(self.classes),
            "tolerance": self.tolerance,
            "convention": self.convention,
            "means": {
                metric: {
                    name: {"mean": _plain(mean), "cases": count, "empty": len(self.cases) - count}
                    for name, mean, count in self.means(metric)
                }
                for metric in self.metrics()
            },
            "cases": [
                {
                    "case": case.case,
                    "dsc": [_plain(v) for v in case.dsc],
                    "nsd": [_plain(v) for v in case.nsd],
                    **({"instances": _objects(case.instances)} if case.instances else {}),
                }
                for case in self.cases
            ],
        }

    def to_csv(self) -> str:
        """A row for each case, class and metric; empty where a score is not defined."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", "class", "metric", "value"])
        for metric in self.metrics():
            names = ("objects",) if metric == "f1" else self.classes
            for case, row in zip(self.cases, self.values(metric), strict=True):
                for name, value in zip(names, row, strict=True):
                    shown = "" if math.isnan(value) else f"{value:.6f}"
                    writer.writerow([case.case, name, metric, shown])
        return text.getvalue()


def score_case(
    name: str,
    pred: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    num_classes: int,
    *,
    tolerance: float,
    spacing: Sequence[float],
    convention: Convention = "contour",
    instances: npt.NDArray[np.int64] | None = None,
) -> CaseScores:
    """Score one case.

    pred, target: class indices (Z, H, W), spacing to match; Z = 1 for pictures. Where target is -1
    (ignored) both count as background. instances: true objects (Z, H, W), against class 1.
    """
    ignored = target < 0
    pred, target = np.where(ignored, 0, pred), np.where(ignored, 0, target)
    flat = target.shape[0] == 1
    nsd = normalized_surface_dice(
        pred[0] if flat else pred,
        target[0] if flat else target,
        num_classes,
        tolerance,
        spacing=spacing[1:] if flat else spacing,
        convention=convention,
    )
    objects = None
    if instances is not None:
        found = [instance_f1(p == 1, t) for p, t in zip(pred, instances, strict=True)]
        objects = InstanceScores(*(sum(getattr(f, n) for f in found) for n in ("tp", "fp", "fn")))
    scores = dice(pred, target, num_classes)
    return CaseScores(name, tuple(scores.tolist()), tuple(nsd.tolist()), objects)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _objects(scores: InstanceScores) -> dict[str, float | None]:
    return {
        "tp": scores.tp,
        "fp": scores.fp,
        "fn": scores.fn,
        "precision": _plain(scores.precision),
        "recall": _plain(scores.recall),
        "f1": _plain(scores.f1),
    }
