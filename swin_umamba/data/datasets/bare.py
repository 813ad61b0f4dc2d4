"""Plain datasets: the folders images/ and masks/."""

from __future__ import annotations

from pathlib import Path

from swin_umamba.common.files import resolved
from swin_umamba.common.names import check_case_names
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset
from swin_umamba.data.datasets.grouping import files_by_stem, group_images
from swin_umamba.data.datasets.problems import Problems
from swin_umamba.data.io.formats import ending_of
from swin_umamba.data.io.labels import Numbers
from swin_umamba.data.io.raw import read_labels, read_raw
from swin_umamba.errors import UserError

IMAGES, MASKS, INSTANCES = "images", "masks", "instances"
MAX_CLASSES = 32


def open_bare(folder: Path) -> Dataset:
    """A dataset from its file names and the values in its masks; see `open_dataset`."""
    masks = files_by_stem(folder / MASKS)
    instances = files_by_stem(folder / INSTANCES) if (folder / INSTANCES).is_dir() else {}
    cases, problems = [], Problems(folder)
    files = _files_per_image(folder / IMAGES, masks)
    for case in group_images(folder / IMAGES, files=files, series=False):
        # A single-file image may have _0000 in its name while the mask does not.
        stems = (case.name, f"{case.name}_0000")
        mask = next((masks[stem] for stem in stems if stem in masks), None)
        if mask is None:
            problems.add(f"{case.images[0]} has no mask: no file at {folder / MASKS / case.name}.*")
            continue
        numbers = next((instances[stem] for stem in stems if stem in instances), None)
        cases.append(CaseFiles(case.name, case.images, mask, numbers))
    if not cases and not problems.messages:
        raise UserError(f"{folder / IMAGES} holds no images")
    used = {case.mask for case in cases}
    for mask in masks.values():
        if mask not in used:
            problems.add(f"{mask} has no image in {folder / IMAGES}")
    problems.raise_any()
    check_case_names((case.name for case in cases), folder / IMAGES)
    channels = read_raw(cases[0].images).pixels.shape[0]
    values = class_values([case.mask for case in cases if case.mask is not None], folder)
    first = cases[0].mask
    assert first is not None  # every case has one, see above
    return Dataset(
        name=resolved(folder).name,
        folder=folder,
        channel_names=_channel_names(channels),
        labels=label_names(values),
        values=values,
        ignore_label=None,
        file_ending=ending_of(first) or "",
        cases=tuple(sorted(cases, key=lambda case: case.name)),
    )


def _files_per_image(folder: Path, masks: dict[str, Path]) -> int:
    """Files per image: 1, unless they are channels: NAME_0000, NAME_0001 with one mask NAME.

    Frames may be numbered in the same way, but then every number has a mask.
    """
    channels: dict[str, int] = {}
    for stem in files_by_stem(folder):
        name, number = stem[:-5], stem[-4:]
        if stem not in masks and name in masks and stem[-5:-4] == "_" and number.isdecimal():
            channels[name] = max(channels.get(name, 0), int(number) + 1)
    return max(channels.values(), default=1)


def class_values(masks: list[Path], folder: Path) -> tuple[int, ...]:
    """The distinct values in all masks, ascending, including 0.

    Raises UserError for every mask that cannot be read, or as soon as there are too many values.
    """
    numbers, problems = Numbers(), Problems(folder)
    for mask in masks:
        with problems.collected():
            numbers.add(read_labels(mask))
        if len(numbers) > MAX_CLASSES:
            raise UserError(
                f"{mask}: with it the masks hold more than {MAX_CLASSES} distinct numbers,"
                " expected one for each class (no JPEG, no instances)"
            )
    problems.raise_any()
    values = numbers.values()
    if len(values) < 2:
        raise UserError(f"{masks[0]} and all other masks are 0 everywhere")
    return values


def _channel_names(channels: int) -> tuple[str, ...]:
    known = {1: ("grey",), 3: ("R", "G", "B")}
    return known.get(channels, tuple(f"channel_{i}" for i in range(channels)))


def label_names(values: tuple[int, ...]) -> dict[str, int]:
    """Generated names for the classes."""
    if len(values) == 2:
        return {"background": 0, "foreground": 1}
    return {"background": 0, **{f"label_{v}": i for i, v in enumerate(values) if i > 0}}
