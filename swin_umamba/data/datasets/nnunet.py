"""nnU-Net v2 raw datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swin_umamba.data.datasets.dataset import CaseFiles, Dataset
from swin_umamba.data.datasets.grouping import group_images, stem_of
from swin_umamba.data.io.formats import ENDINGS
from swin_umamba.errors import UserError

DATASET = "dataset.json"
IMAGES, LABELS, INSTANCES = "imagesTr", "labelsTr", "instancesTr"
MAX_LABEL = 65_535


def open_nnunet(folder: Path) -> Dataset:
    """A dataset by its dataset.json; see `open_dataset`."""
    path = folder / DATASET
    facts = _read_json(path)
    channel_names = _channel_names(facts, path)
    labels, values, ignore_label = _labels(facts, path)
    ending = facts.get("file_ending")
    if not isinstance(ending, str) or ending.lower() not in ENDINGS:
        raise UserError(f"{path}: file_ending is {ending!r}, expected one of {', '.join(ENDINGS)}")
    listed = facts.get("dataset")
    channels = len(channel_names)
    cases = _found(folder, ending, channels) if listed is None else _listed(folder, listed, path)
    for case in cases:
        if len(case.images) not in (1, channels) or len(case.images) != len(cases[0].images):
            raise UserError(
                f"{path}: case {case.name!r} has {len(case.images)} image files, expected"
                f" {channels}, one for each channel"
            )
    return Dataset(
        name=folder.resolve().name,
        folder=folder,
        channel_names=channel_names,
        labels=labels,
        values=values,
        ignore_label=ignore_label,
        file_ending=ending,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
    )


def _found(folder: Path, ending: str, channels: int) -> list[CaseFiles]:
    for name in (IMAGES, LABELS):
        if not (folder / name).is_dir():
            raise UserError(f"no folder at {folder / name}")
    # One file may hold all channels, as RGB pictures do.
    apart = any((folder / IMAGES).glob(f"*_0001{ending}"))
    cases = []
    for case in group_images(folder / IMAGES, files=channels if apart else 1, ending=ending):
        mask = folder / LABELS / f"{case.name}{ending}"
        if not mask.is_file():
            raise UserError(f"{case.images[0]} has no label: no file at {mask}")
        instances = folder / INSTANCES / mask.name
        cases.append(
            CaseFiles(case.name, case.images, mask, instances if instances.is_file() else None)
        )
    if not cases:
        raise UserError(f"{folder / IMAGES} holds no images that end with {ending}")
    names = {case.name for case in cases}
    for path in sorted((folder / LABELS).iterdir()):
        stem = stem_of(path, ending)
        if stem is not None and stem not in names and not path.name.startswith("."):
            raise UserError(f"{path} has no image in {folder / IMAGES}")
    return cases


def _listed(folder: Path, listed: Any, path: Path) -> list[CaseFiles]:
    """The cases that dataset.json names itself: {NAME: {"images": [...], "label": ...}}."""
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
        raise UserError(f"{path}: dataset names no images")
    for case in cases:
        for file in (*case.images, case.mask):
            if file is not None and not file.is_file():
                raise UserError(f"no file at {file}, which {path} names")
    return cases


def _read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path} holds a {type(facts).__name__}, expected a JSON object")
    return facts


def _channel_names(facts: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = facts.get("channel_names")
    expected = '{"0": name, "1": name, ...}'
    if not isinstance(names, dict) or not names:
        hint = "; this looks like nnU-Net v1" if "modality" in facts else ""
        raise UserError(f"{path}: channel_names is {names!r}, expected {expected}{hint}")
    if set(names) != {str(i) for i in range(len(names))}:
        raise UserError(f"{path}: channel_names has the keys {sorted(names)}, expected {expected}")
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _labels(
    facts: dict[str, Any], path: Path
) -> tuple[dict[str, int], tuple[int, ...], int | None]:
    """Class numbers by name, their numbers in the files, and the ignore label."""
    labels = facts.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path}: labels is {labels!r}, expected {{name: number, ...}}")
    for name, number in labels.items():
        if isinstance(number, list):
            raise UserError(
                f"{path}: label {name!r} is the region {number}; region-based labels are not"
                " supported, give each label one number"
            )
        if (
            not isinstance(number, int)
            or isinstance(number, bool)
            or not (0 <= number <= MAX_LABEL)
        ):
            hint = "; this looks like nnU-Net v1" if str(name).isdigit() else ""
            raise UserError(
                f"{path}: label {name!r} is {number!r}, expected 0 to {MAX_LABEL}{hint}"
            )
    ignore_label = labels.get("ignore")
    named = sorted(
        ((number, name) for name, number in labels.items() if name != "ignore"),
    )
    numbers = [number for number, _ in named]
    if len(set(labels.values())) != len(labels):
        raise UserError(f"{path}: two labels have one number: {labels}")
    if len(numbers) < 2 or numbers[0] != 0:
        raise UserError(f"{path}: labels are {labels}, expected the background as 0 and others")
    return {name: i for i, (_, name) in enumerate(named)}, tuple(numbers), ignore_label
