"""The ground truth that predictions are compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from swin_umamba.common.files import resolved
from swin_umamba.data import CaseFiles, Dataset, open_dataset
from swin_umamba.data.datasets.bare import class_values, label_names
from swin_umamba.data.datasets.grouping import files_by_stem
from swin_umamba.data.io.formats import ending_of
from swin_umamba.errors import UserError


def open_truth(path: str | Path, dataset: Dataset | None = None) -> Dataset:
    """A dataset, or a folder that contains only masks, as a dataset.

    dataset: provides the classes, their names and the ignore label for a folder of masks; without
    it, the distinct values of all masks are the classes. Raises UserError for anything else, or if
    `dataset` is given although the folder is a dataset.
    """
    folder = Path(path)
    masks = files_by_stem(folder)
    if not masks:
        if dataset is not None:
            raise UserError(f"{folder} holds no masks itself, but {dataset.folder} is given too")
        return open_dataset(folder)
    cases = tuple(CaseFiles(name, (), mask) for name, mask in masks.items())
    if dataset is not None:
        return dataclasses.replace(dataset, folder=folder, cases=cases)
    values = class_values(list(masks.values()), folder)
    return Dataset(
        name=resolved(folder).name,
        folder=folder,
        channel_names=(),
        labels=label_names(values),
        values=values,
        ignore_label=None,
        file_ending=ending_of(next(iter(masks.values()))) or "",
        cases=cases,
    )


def with_instances(dataset: Dataset, folder: Path) -> Dataset:
    """The dataset with instance maps from another folder, by case name."""
    maps = files_by_stem(folder)
    cases = tuple(
        dataclasses.replace(case, instances=maps.get(case.name)) for case in dataset.cases
    )
    if not any(case.instances for case in cases):
        raise UserError(f"{folder} holds no map of instances named as a case of {dataset.folder}")
    return dataclasses.replace(dataset, cases=cases)
