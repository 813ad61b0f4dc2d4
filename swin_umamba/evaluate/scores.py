"""The scores of cases, and their means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.csv_cells import cell
from swin_umamba.metrics import InstanceScores, dice, instance_f1, normalized_surface_dice
from swin_umamba.metrics.surface import Convention

# All metrics, with their display names.
METRICS = {
    "dsc": "DSC",
    "dsc_merged": "merged DSC",
    "nsd": "NSD",
    "nsd_release": "NSD (release)",
    "f1": "F1",
}
Labels = npt.NDArray[np.int64]
Regions = Sequence[Sequence[int]]
"""The class indices that each region is the union of."""
MERGED, OBJECTS = "all merged", "objects"  # used in place of a class


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case: a value per class, NaN if neither mask contains it.

    nsd is of the contour; nsd_release, in the original implementation's convention, and instances
    are present if requested. dsc_merged: DSC of all classes merged into one, () if there is only
    one.
    """

    case: str
    dsc: tuple[float, ...]
    nsd: tuple[float, ...]
    nsd_release: tuple[float, ...] = ()
    instances: InstanceScores | None = None
    dsc_merged: tuple[float, ...] = ()

    def values(self, metric: str) -> tuple[float, ...]:
        """One of METRICS: a value per class, a single one, or none if it was not measured."""
        if metric == "f1":
            return () if self.instances is None else (self.instances.f1,)
        found: tuple[float, ...] = getattr(self, metric)
        return found


@dataclass(frozen=True)
class Scores:
    """Scores of all cases. classes: names without the background. tolerance: of NSD, in the unit of
    the images' spacing."""

    classes: tuple[str, ...]
    tolerance: float
    cases: tuple[CaseScores, ...]

    def metrics(self) -> tuple[str, ...]:
        """The METRICS that were measured."""
        return tuple(m for m in METRICS if any(case.values(m) for case in self.cases))

    def names(self, metric: str) -> tuple[str, ...]:
        """Names of the columns of `values`."""
        return {"f1": (OBJECTS,), "dsc_merged": (MERGED,)}.get(metric, self.classes)

    def values(self, metric: str) -> npt.NDArray[np.float64]:
        """(cases, names), NaN for undefined scores."""
        missing = (math.nan,) * len(self.names(metric))
        return np.array([case.values(metric) or missing for case in self.cases], np.float64)

    def means(self, metric: str) -> list[tuple[str, float, int]]:
        """Name, mean over the cases where it is defined, and their number; NaN for none."""
        columns = zip(self.names(metric), self.values(metric).T, strict=True)
        return [(name, mean_of_defined(c), int((~np.isnan(c)).sum())) for name, c in columns]

    def mean(self, metric: str) -> float:
        """The mean over classes of their means over cases; NaN if there are none."""
        return mean_of_defined(np.array([mean for _, mean, _ in self.means(metric)]))

    def objects(self) -> InstanceScores | None:
        """The objects of all cases together."""
        found = [case.instances for case in self.cases if case.instances is not None]
        return summed(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Plain values, with null for undefined scores."""
        objects = self.objects()
        return {
            "classes": list(self.classes),
            "tolerance": self.tolerance,
            "means": {
                metric: {
                    name: {"mean": _plain(mean), "cases": count, "empty": len(self.cases) - count}
                    for name, mean, count in self.means(metric)
                }
                for metric in self.metrics()
            },
            "means_of_classes": {metric: _plain(self.mean(metric)) for metric in self.metrics()},
            **({"objects": _objects(objects)} if objects else {}),
            "cases": [
                {
                    "case": case.case,
                    **{
                        metric: [_plain(value) for value in case.values(metric)]
                        for metric in self.metrics()
                        if metric != "f1"
                    },
                    **({"instances": _objects(case.instances)} if case.instances else {}),
                }
                for case in self.cases
            ],
        }

    def to_csv(self) -> str:
        """A row for each case, class and metric; empty for undefined scores."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["case", "class", "metric", "value"])
        for metric in self.metrics():
            for case, row in zip(self.cases, self.values(metric), strict=True):
                for name, value in zip(self.names(metric), row, strict=True):
                    shown = "" if math.isnan(value) else f"{value:.6f}"
                    writer.writerow([cell(case.case), cell(name), metric, shown])
        return text.getvalue()


def score_case(
    name: str,
    pred: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    num_classes: int,
    *,
    tolerance: float,
    spacing: Sequence[float],
    release_nsd: bool = False,
    instances: npt.NDArray[np.int64] | None = None,
    regions: Regions | None = None,
) -> CaseScores:
    """Score one case.

    pred, target: class indices (Z, H, W), with spacing in the same order; Z = 1 for 2-D images.
    Pixels with target -1 (ignored) count as background in both. release_nsd: also measure NSD in
    the original implementation's convention, for 2-D images only. instances: true objects (Z, H,
    W), matched with class 1 slice by slice. regions: score these unions of classes instead of the
    classes.
    """
    ignored = target < 0
    pred, target = without_ignored(pred, target)
    flat = target.shape[0] == 1
    if release_nsd and not flat:
        raise ValueError(
            f"release_nsd: for 2-D images only, got {name} with {target.shape[0]} slices"
        )
    pairs = list(scored_apart(pred, target, num_classes, regions))

    def nsd(convention: Convention) -> tuple[float, ...]:
        found = (
            normalized_surface_dice(
                p[0] if flat else p,
                t[0] if flat else t,
                classes,
                tolerance,
                spacing=spacing[1:] if flat else spacing,
                convention=convention,
            ).tolist()
            for p, t, classes in pairs
        )
        return tuple(value for values in found for value in values)

    objects = None
    if instances is not None:
        slices = zip(pred, np.where(ignored, 0, instances), strict=True)
        objects = summed([instance_f1(p == 1, t) for p, t in slices])
    merged = dice((pred > 0).astype(np.int64), (target > 0).astype(np.int64), 2)
    return CaseScores(
        name,
        dsc_of(pred, target, num_classes, regions),
        nsd("contour"),
        nsd("release") if release_nsd else (),
        objects,
        tuple(merged.tolist()) if num_classes > 2 and regions is None else (),
    )


def without_ignored(pred: Labels, target: Labels) -> tuple[Labels, Labels]:
    """Both, with background where the target is ignored (-1)."""
    ignored = target < 0
    return np.where(ignored, 0, pred), np.where(ignored, 0, target)


def scored_apart(
    pred: Labels, target: Labels, num_classes: int, regions: Regions | None
) -> Iterator[tuple[Labels, Labels, int]]:
    """Pairs of maps with their number of classes: the given pair, or one pair per region."""
    if regions is None:
        yield pred, target, num_classes
        return
    for region in regions:
        inside, truth = (np.isin(labels, region).astype(np.int64) for labels in (pred, target))
        yield inside, truth, 2


def dsc_of(
    pred: Labels, target: Labels, num_classes: int, regions: Regions | None
) -> tuple[float, ...]:
    """DSC of every class but the background, or of every region; NaN if neither map has it.

    pred, target: class indices of the same shape, without ignored ones.
    """
    found = (dice(*pair).tolist() for pair in scored_apart(pred, target, num_classes, regions))
    return tuple(value for values in found for value in values)


def summed(found: Sequence[InstanceScores]) -> InstanceScores:
    """The objects of several images together."""
    return InstanceScores(*(sum(getattr(f, n) for f in found) for n in ("tp", "fp", "fn")))


def mean_of_defined(values: npt.NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


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
