"""The cached state of a prepared dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from swin_umamba.common.files import resolved
from swin_umamba.common.records import Count, Listed, Record, nested, record
from swin_umamba.data.datasets.dataset import CaseFiles, Dataset
from swin_umamba.data.datasets.splits import FOLDS
from swin_umamba.data.io.formats import files_of
from swin_umamba.data.prepare.digests import Stamp, stamp_of
from swin_umamba.errors import UserError

Side = Annotated[tuple[Count, Count], Listed]


@record
class Choices(Record):
    """The user's choices for preparing a dataset; None means determined by the dataset.

    splits: a file in nnU-Net's format, instead of `folds` folds. groups: a file with the group of
    each case; group_by: a regular expression that finds it in the name. patch_size: (height,
    width). axis: of volumes, see `make_plan`. gpu_memory: in GB, to propose a batch size for.
    """

    WHAT: ClassVar[str] = "preparation"

    splits: str | None = None
    folds: Annotated[int, Field(ge=2)] = FOLDS
    groups: str | None = None
    group_by: str | None = None
    patch_size: Side | None = None
    axis: Annotated[int, Field(ge=0, le=2)] | None = None
    gpu_memory: Annotated[float, Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.splits is not None and self.folds != FOLDS:
            raise ValueError("folds: the splits file determines the number of folds")
        if self.groups is not None and self.group_by is not None:
            raise ValueError("group_by: got a rule and a groups file, expected one of them")


def changed_choices(choices: Choices, changes: Mapping[str, Any]) -> Choices:
    """A copy with some choices replaced, which unsets those they exclude.

    Raises UserError, naming the field, for invalid values.
    """
    values = dict(changes)
    for name, excluded in (("splits", "folds"), ("groups", "group_by"), ("group_by", "groups")):
        if values.get(name) is not None:
            values.setdefault(excluded, getattr(Choices(), excluded))
    try:
        return choices.changed(values)
    except ValueError as error:
        raise UserError(str(error)) from error


Digests = dict[str, Annotated[tuple[Annotated[tuple[int, int, int], Listed], str], Listed]]


@record
class State(Record):
    """State of one dataset: the choices given to `swin-umamba prepare`, and reusable results.

    signature: of the files when last read, for which the rest is valid; plans: the plan for each
    set of choices and training cases, by their hash; counts: for each case, the number of ignored
    pixels, then of pixels of each class; digests: of file contents.
    """

    WHAT: ClassVar[str] = "state of a prepared dataset"

    dataset: str
    signature: str
    choices: Annotated[Choices, nested(Choices)]
    plans: dict[str, dict[str, Any]] = Field(default_factory=dict)
    counts: dict[str, Annotated[tuple[int, ...], Listed]] = Field(default_factory=dict)
    digests: Digests = Field(default_factory=dict)


def state_path(folder: Path, dataset: Path) -> Path:
    """The state file in the dataset's cache folder; datasets of the same name have one each."""
    place = hashlib.blake2b(str(resolved(dataset)).encode(), digest_size=6).hexdigest()
    return folder / f"prepared-{place}.json"


def load_state(path: Path) -> State | None:
    """The state; None if there is none. Raises UserError if it cannot be read."""
    if not path.is_file():
        return None
    try:
        return State.load(path)
    except UserError as error:
        raise UserError(f"{error}; swin-umamba prepare --clean starts over") from error


def signature_of(dataset: Dataset) -> str:
    """A hash that changes with any file of a dataset, or with the meaning of its labels.

    Raises UserError, naming the file, if one is missing.
    """
    facts = {
        "channels": dataset.channel_names,
        "labels": dataset.labels,
        "values": dataset.values,
        "ignore": dataset.ignore_label,
        "regions": dataset.regions,
        "order": dataset.regions_class_order,
        "cases": {case.name: _stamps(case) for case in dataset.cases},
    }
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def files_of_case(case: CaseFiles) -> Iterator[Path]:
    """Every file that belongs to a case."""
    for path in (*case.images, case.mask, case.instances):
        if path is not None:
            yield from files_of(path)


def _stamps(case: CaseFiles) -> list[tuple[str, Stamp]]:
    try:
        return [(str(path), stamp_of(path)) for path in files_of_case(case)]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error
