"""nnU-Net v2 raw datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swin_umamba.common.files import resolved
from swin_umamba.common.jsons import load_object
from swin_umamba.common.names import check_case_names
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset
from swin_umamba.data.datasets.grouping import files_by_stem, group_images
from swin_umamba.data.datasets.labels import read_label_facts
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.data.io.formats import ENDINGS
from swin_umamba.errors import UserError

DATASET = "dataset.json"
IMAGES, LABELS, INSTANCES = "imagesTr", "labelsTr", "instancesTr"


def open_nnunet(folder: Path) -> Dataset:
    """A dataset from its dataset.json; see `open_dataset`."""
    path = folder / DATASET
    facts = load_object(path, "a dataset")
    channel_names = _channel_names(facts, path)
    labels = read_label_facts(facts, path)
    ending = facts.get("file_ending")
    if not isinstance(ending, str) or ending.lower() not in ENDINGS:
        raise UserError(f"{path}: file_ending is {ending!r}, expected one of {', '.join(ENDINGS)}")
    listed = facts.get("dataset")
    channels = len(channel_names)
    cases = _found(folder, ending, channels) if listed is None else _listed(folder, listed, path)
    check_case_names((case.name for case in cases), path)
    problems = Problems(folder)
    for case in cases:
        if len(case.images) not in (1, channels) or len(case.images) != len(cases[0].images):
            problems.add(
                f"{path}: case {case.name!r} has {len(case.images)} image files, expected"
                f" {channels}, one for each channel"
            )
    problems.raise_any()
    return Dataset(
        name=resolved(folder).name,
        folder=folder,
        channel_names=channel_names,
        labels=labels.labels,
        values=labels.values,
        ignore_label=labels.ignore_label,
        file_ending=ending,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        regions=labels.regions,
        region_names=labels.region_names,
        regions_class_order=labels.regions_class_order,
    )


def _found(folder: Path, ending: str, channels: int) -> list[CaseFiles]:
    for name in (IMAGES, LABELS):
        if not (folder / name).is_dir():
            raise UserError(f"no folder at {folder / name}")
    # One file may contain all channels, as RGB images do.
    apart = any(stem.endswith("_0001") for stem in files_by_stem(folder / IMAGES, ending))
    masks = files_by_stem(folder / LABELS, ending)
    instances: dict[str, Path] = {}
    if (folder / INSTANCES).is_dir():
        instances = files_by_stem(folder / INSTANCES, ending)
    cases, problems = [], Problems(folder)
    files = channels if apart else 1
    for case in group_images(folder / IMAGES, files=files, ending=ending, series=False):
        mask = masks.get(case.name)
        if mask is None:
            expected = folder / LABELS / f"{case.name}{ending}"
            problems.add(f"{case.images[0]} has no label: no file at {expected}")
        cases.append(CaseFiles(case.name, case.images, mask, instances.get(case.name)))
    if not cases:
        raise UserError(f"{folder / IMAGES} holds no images that end with {ending}")
    names = {case.name for case in cases}
    for stem, path in masks.items():
        if stem not in names:
            problems.add(f"{path} has no image in {folder / IMAGES}")
    problems.raise_any()
    return cases


def _listed(folder: Path, listed: Any, path: Path) -> list[CaseFiles]:
    """The cases listed by dataset.json: {NAME: {"images": [...], "label": ...}}."""
    try:
        cases = [
            CaseFiles(
                str(name),
                tuple(folder / image for image in entry["images"]),
                folder / entry["label"],
            )
            for name, entry in listed.items()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: dataset is not {{NAME: {{"images": [...], "label": ...}}}}: {error!r}'
        ) from error
    if not cases or not all(case.images for case in cases):
        raise UserError(f"{path}: dataset lists no images")
    problems = Problems(folder)
    for case in cases:
        for file in (*case.images, case.mask):
            if file is not None and not file.is_file():
                problems.add(f"no file at {file}, which {path} names")
    problems.raise_any()
    return cases


def _channel_names(facts: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = facts.get("channel_names")
    expected = '{"0": name, "1": name, ...}'
    if not isinstance(names, dict) or not names:
        hint = "; this looks like nnU-Net v1" if "modality" in facts else ""
        raise UserError(f"{path}: channel_names is {names!r}, expected {expected}{hint}")
    if set(names) != {str(i) for i in range(len(names))}:
        raise UserError(f"{path}: channel_names has the keys {sorted(names)}, expected {expected}")
    return tuple(str(names[str(i)]) for i in range(len(names)))
