"""Which classes gain from keeping only their largest component, found on held-out cases.

nnU-Net's rule: a class is cleaned where the mean DSC over the classes rises by it and that of no
class, or region, falls. (nnU-Net first tries all of the foreground as one object; not so here.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swin_umamba.data import Dataset
from swin_umamba.evaluate.folders import grid_of, labels_of
from swin_umamba.evaluate.scores import dsc_of, without_ignored
from swin_umamba.inference.postprocessing import Postprocessing, keep_largest
from swin_umamba.runs.folder import POSTPROCESSING


def find_postprocessing(files: Mapping[str, Path], dataset: Dataset) -> Postprocessing:
    """By predicted masks of held-out cases, by the cases' names; masks without postprocessing."""
    classes = range(1, len(dataset.values))
    if dataset.regions is None:
        # Classes that exclude each other: what is removed of one is the background of all others.
        before, after = (_means(files, dataset, cleaned) for cleaned in ((), classes))
        better: list[int] = [number for number in classes if after[number - 1] > before[number - 1]]
    else:
        better, before = [], _means(files, dataset, ())
        for number in classes:
            after = _means(files, dataset, (*better, number))
            if np.nansum(after) > np.nansum(before) and not (after < before).any():
                better, before = [*better, number], after
    return Postprocessing(keep_largest=tuple(dataset.values[number] for number in better))


def save_postprocessing(found: Postprocessing, run: Path) -> None:
    """Write it into a run's folder, where prediction looks for it."""
    found.save(run / POSTPROCESSING)


def _means(
    files: Mapping[str, Path], dataset: Dataset, cleaned: Iterable[int]
) -> npt.NDArray[np.float64]:
    """The mean DSC over the cases of each class or region, NaN where it is nowhere."""
    table = []
    regions = dataset.region_classes
    for name, file in files.items():
        raw, mask = grid_of(dataset.case(name), dataset)
        pred, target = labels_of(file, raw, mask, dataset)
        kept = keep_largest(pred, cleaned)
        table.append(dsc_of(*without_ignored(kept, target), len(dataset.values), regions))
    scores = np.array(table)
    counts = (~np.isnan(scores)).sum(0)
    return np.where(counts > 0, np.nansum(scores, axis=0) / np.maximum(counts, 1), np.nan)
