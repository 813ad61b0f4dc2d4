"""Score a folder of predictions against a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swin_umamba.data import CaseFiles, Dataset, RawImage, classes_of, read_labels, read_raw
from swin_umamba.data.datasets.grouping import files_by_stem
from swin_umamba.errors import UserError
from swin_umamba.evaluate.scores import CaseScores, Scores, score_case
from swin_umamba.evaluate.truth import open_truth
from swin_umamba.inference.postprocessing import keep_largest

SHOWN = 5  # maximum number of cases listed in a message
TOLERANCE = 2.0


def evaluate_folder(
    predictions: str | Path,
    truth: Dataset | str | Path,
    *,
    names: Iterable[str] | None = None,
    tolerance: float = TOLERANCE,
    release_nsd: bool = False,
    instances: bool | None = None,
    allow_missing: bool = False,
    allow_extra: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score files named like the cases, with the dataset's values for classes.

    truth: a dataset, or a folder of masks, see `open_truth`. names: cases to score, by default all
    that have a mask. allow_missing: score only cases for which `predictions` has files.
    allow_extra: ignore files that belong to no case. Other arguments as in `evaluate_cases`. Raises
    UserError, naming the file or case, for missing, unknown or unreadable predictions, wrong shapes
    and unknown labels.
    """
    folder = Path(predictions)
    dataset = truth if isinstance(truth, Dataset) else open_truth(truth)
    if not folder.is_dir():
        raise UserError(f"no folder of predictions at {folder}")
    files = files_by_stem(folder)
    if not files:
        raise UserError(f"{folder} holds no predictions")
    known = [case.name for case in dataset.cases if case.mask is not None]
    strangers = sorted(set(files) - set(known))
    if strangers and not allow_extra:
        raise UserError(
            f"{folder} holds predictions of no case of {dataset.name}: {some(strangers)}"
        )
    wanted = sorted(known if names is None else set(names))
    missing = [name for name in wanted if name not in files]
    if missing and (not allow_missing or len(missing) == len(wanted)):
        # If all are missing, the folder is wrong and the hint would not help.
        hint = "" if len(missing) == len(wanted) else "; --allow-missing scores the others"
        raise UserError(f"{folder} lacks predictions of {some(missing)}{hint}")
    return evaluate_cases(
        {name: files[name] for name in wanted if name in files},
        dataset,
        tolerance=tolerance,
        release_nsd=release_nsd,
        instances=instances,
        on_progress=on_progress,
    )


def evaluate_cases(
    files: Mapping[str, Path],
    dataset: Dataset,
    *,
    tolerance: float = TOLERANCE,
    release_nsd: bool = False,
    instances: bool | None = None,
    keep_largest: Sequence[int] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score predicted masks by case name, with the dataset's values for classes.

    tolerance: of NSD, in the unit of the images' spacing (pixels if files have none). release_nsd:
    also measure NSD as the original implementation does; UserError for volumes. instances: whether
    to match objects of class 1 with the instance maps, by default if every case has one.
    keep_largest: classes reduced to their largest component. on_progress: called with (done,
    total).
    """
    if instances is None:
        instances = all(dataset.case(name).instances is not None for name in files)
    scores = []
    for done, (name, file) in enumerate(files.items(), 1):
        scores.append(_score(dataset, name, file, tolerance, release_nsd, instances, keep_largest))
        if on_progress is not None:
            on_progress(done, len(files))
    names = tuple(dataset.labels)[1:] if dataset.regions is None else dataset.region_names
    return Scores(names, tolerance, tuple(scores))


def _score(
    dataset: Dataset,
    name: str,
    file: Path,
    tolerance: float,
    release_nsd: bool,
    instances: bool,
    cleaned: Sequence[int],
) -> CaseScores:
    case = dataset.case(name)
    raw, mask = grid_of(case, dataset)
    pred, target = labels_of(file, raw, mask, dataset)
    objects = None
    if instances:
        if case.instances is None:
            raise UserError(f"{name} has no map of instances in {dataset.folder}")
        objects = read_labels(case.instances, raw).labels
    if release_nsd and target.shape[0] > 1:
        raise UserError(
            f"{mask} is a volume: the release's convention for NSD is for 2-D images only"
        )
    return score_case(
        name,
        keep_largest(pred, cleaned),
        target,
        len(dataset.values),
        tolerance=tolerance,
        spacing=raw.spacing,
        release_nsd=release_nsd,
        instances=objects,
        regions=dataset.region_classes,
    )


def labels_of(
    file: Path, raw: RawImage, mask: Path, dataset: Dataset
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Class indices (Z, H, W) of a predicted file and of the ground truth, -1 where ignored."""
    target = classes_of(read_labels(mask, raw), dataset.values, dataset.ignore_label)
    return classes_of(read_labels(file, raw), dataset.values), target


def grid_of(case: CaseFiles, dataset: Dataset) -> tuple[RawImage, Path]:
    """The image of a case, or its mask if there is none, and the path of the mask."""
    if case.mask is None:
        raise UserError(f"{case.name} has no mask in {dataset.folder}")
    if case.images:
        return read_raw(case.images), case.mask
    own = read_labels(case.mask)
    grid = (own.geometry, own.origin, own.direction)
    return RawImage(own.labels[None], own.spacing, (case.mask,), *grid), case.mask


def some(names: list[str]) -> str:
    """The first of the names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
