"""The labels in dataset.json: classes, regions, and the ignore label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba.errors import UserError

BACKGROUND, IGNORE = "background", "ignore"
MAX_LABEL = 65_535


@dataclass(frozen=True)
class LabelFacts:
    """The fields of Dataset that describe labels."""

    labels: dict[str, int]
    values: tuple[int, ...]
    ignore_label: int | None
    regions: tuple[tuple[int, ...], ...] | None = None
    region_names: tuple[str, ...] = ()
    regions_class_order: tuple[int, ...] | None = None


def read_label_facts(facts: dict[str, Any], path: Path) -> LabelFacts:
    """Read `labels` and `regions_class_order` of a dataset.json, following nnU-Net v2.

    If any label lists two or more values it is a region, and so is every other label except the
    background and the ignore label. Raises UserError, naming the file and the label.
    """
    numbers = _numbers(facts.get("labels"), path)
    ignore = _ignored(numbers, path)
    if any(len(found) > 1 for found in numbers.values()):
        return _with_regions(numbers, ignore, facts.get("regions_class_order"), path)
    singles = {name: found[0] for name, found in numbers.items()}
    if len({*singles.values(), ignore}) != len(singles) + 1:
        raise UserError(f"{path}: two labels have the same number: {facts['labels']}")
    named = sorted((number, name) for name, number in singles.items())
    if len(named) < 2 or named[0][0] != 0 or singles.get(BACKGROUND, 0) != 0:
        raise UserError(
            f"{path}: labels are {facts['labels']}, expected the background as 0, and others"
        )
    labels = {name: i for i, (_, name) in enumerate(named)}
    return LabelFacts(labels, tuple(number for number, _ in named), ignore)


def _numbers(labels: Any, path: Path) -> dict[str, tuple[int, ...]]:
    """The mask values of each label."""
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path}: labels is {labels!r}, expected {{name: number, ...}}")
    found = {}
    for name, value in labels.items():
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(_fits(number) for number in listed):
            hint = "; this looks like nnU-Net v1" if str(name).isdigit() else ""
            raise UserError(
                f"{path}: label {name!r} is {value!r}, expected 0 to {MAX_LABEL}, or a list of"
                f" such numbers for a region{hint}"
            )
        found[str(name)] = tuple(sorted(set(listed)))
    return found


def _fits(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_LABEL


def _ignored(numbers: dict[str, tuple[int, ...]], path: Path) -> int | None:
    """Remove the ignore label."""
    found = numbers.pop(IGNORE, None)
    if found is None:
        return None
    if len(found) > 1:
        raise UserError(f"{path}: label {IGNORE!r} is {list(found)}, expected one number")
    return found[0]


def _with_regions(
    numbers: dict[str, tuple[int, ...]], ignore: int | None, order: Any, path: Path
) -> LabelFacts:
    if numbers.get(BACKGROUND) != (0,):
        raise UserError(f"{path}: labels has no {BACKGROUND!r} as 0, which regions need")
    regions = {name: found for name, found in numbers.items() if found != (0,)}
    values = tuple(sorted({0}.union(*regions.values())))
    if ignore in values:
        raise UserError(f"{path}: the number {ignore} is {IGNORE!r} and part of another label")
    if any(0 in found for found in regions.values()):
        raise UserError(f"{path}: a region holds 0, which is the background: {regions}")
    expected = f"one of the labels' numbers for each of the {len(regions)} regions, in their order"
    if (
        not isinstance(order, list)
        or len(order) != len(regions)
        or not all(_fits(number) and number in values for number in order)
    ):
        raise UserError(f"{path}: regions_class_order is {order!r}, expected {expected}")
    single = {found[0]: name for name, found in regions.items() if len(found) == 1}
    labels = {BACKGROUND: 0}
    for number, value in enumerate(values[1:], 1):
        labels[single.get(value, f"label_{value}")] = number
    if len(labels) != len(values):
        raise UserError(f"{path}: two labels have the same name or number: {labels}")
    return LabelFacts(labels, values, ignore, tuple(regions.values()), tuple(regions), tuple(order))
