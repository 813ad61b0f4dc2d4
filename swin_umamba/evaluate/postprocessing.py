"""Find the classes that gain from keeping only their largest component, on held-out cases.

nnU-Net's rule: a class is cleaned if that raises the mean DSC over the classes and lowers the DSC
of no class or region. (nnU-Net first tries to treat all foreground as one object; we do not.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import sha256
from swin_umamba.data import Dataset
from swin_umamba.errors import UserError
from swin_umamba.evaluate.folders import grid_of, labels_of
from swin_umamba.evaluate.scores import dsc_of, without_ignored
from swin_umamba.inference.postprocessing import Postprocessing, keep_largest
from swin_umamba.inference.record import origins
from swin_umamba.runs.folder import POSTPROCESSING
from swin_umamba.runs.run import Run


def find_postprocessing(
    files: Mapping[str, Path],
    dataset: Dataset,
    on_progress: Callable[[int, int], None] | None = None,
) -> Postprocessing:
    """From predicted masks of held-out cases by case name; masks without postprocessing.

    on_progress: called with the number of scored masks and the total; each mask is scored several
    times, with and without postprocessing.
    """
    classes = range(1, len(dataset.values))
    rounds = 2 if dataset.regions is None else 1 + len(classes)
    scored = 0

    def means(cleaned: Iterable[int]) -> npt.NDArray[np.float64]:
        nonlocal scored
        table = []
        for name, file in files.items():
            table.append(_scores(name, file, dataset, cleaned))
            scored += 1
            if on_progress is not None:
                on_progress(scored, rounds * len(files))
        return _means(table)

    if dataset.regions is None:
        # With mutually exclusive classes, what is removed of one becomes background for all others.
        before, after = map(means, ((), classes))
        better: list[int] = [number for number in classes if after[number - 1] > before[number - 1]]
    else:
        better, before = [], means(())
        for number in classes:
            after = means((*better, number))
            if np.nansum(after) > np.nansum(before) and not (after < before).any():
                better, before = [*better, number], after
    return Postprocessing(keep_largest=tuple(dataset.values[number] for number in better))


def require_masks_of(run: Path, folder: Path, files: Iterable[Path]) -> None:
    """Raise UserError for masks in a folder that the run's best weights did not make alone, or that
    are postprocessed already; the folder's record shows what made each."""
    weights = sha256(Run.open(run).weights())
    made_by = origins(folder)
    for file in files:
        facts = made_by.get(file.name)
        if facts is None:
            what = "by an unknown model"
        elif facts.get("model") != weights:
            what = "by another model than the run's present best weights"
        elif "keep largest" in facts:
            what = "with postprocessing"
        else:
            continue
        raise UserError(
            f"{file} was made {what}, expected a mask that {run} predicts without postprocessing:"
            f" predict its held-out cases again, with swin-umamba predict {run} IMAGES MASKS"
            " --no-postprocessing"
        )


def save_postprocessing(found: Postprocessing, run: Path) -> None:
    """Write it into a run folder, where prediction finds it, for the run's present weights."""
    weights = sha256(Run.open(run).weights())
    Postprocessing(found.keep_largest, weights).save(run / POSTPROCESSING)


def _scores(name: str, file: Path, dataset: Dataset, cleaned: Iterable[int]) -> Sequence[float]:
    """The DSC of each class or region in one case."""
    raw, mask = grid_of(dataset.case(name), dataset)
    pred, target = labels_of(file, raw, mask, dataset)
    kept = without_ignored(keep_largest(pred, cleaned), target)
    return dsc_of(*kept, len(dataset.values), dataset.region_classes)


def _means(table: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """The mean over the cases for each class or region, NaN if no case contains it."""
    scores = np.array(table)
    counts = (~np.isnan(scores)).sum(0)
    return np.where(counts > 0, np.nansum(scores, axis=0) / np.maximum(counts, 1), np.nan)
