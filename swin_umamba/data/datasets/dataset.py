"""The user's dataset: which files belong to which case, and what the labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.raw import RawImage, classes_of, read_labels, read_raw
from swin_umamba.errors import UserError


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case: an image of one or more files, its mask, its instance numbers."""

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None
    instances: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """What `open_dataset` found.

    labels: the number of each class as the network and predictions count it, background 0 first,
    without the ignore label. values: the number of each class in the mask files, in the order of
    the classes; usually 0, 1, 2, ..., but (0, 255) for masks of black and white. ignore_label: the
    number in the mask files of pixels without truth. file_ending: of masks, as ".png".

    regions: of region-based labels, the numbers in the mask files that make up each region, which
    may overlap; one output of the network each. None otherwise. region_names: of these.
    regions_class_order: the number that each region writes into a prediction, later ones over
    earlier ones, as in nnU-Net.
    """

    name: str
    folder: Path
    channel_names: tuple[str, ...]
    labels: dict[str, int]
    values: tuple[int, ...]
    ignore_label: int | None
    file_ending: str
    cases: tuple[CaseFiles, ...]
    regions: tuple[tuple[int, ...], ...] | None = None
    region_names: tuple[str, ...] = ()
    regions_class_order: tuple[int, ...] | None = None

    @property
    def files_per_image(self) -> int:
        """1, or as many as channels."""
        return len(self.cases[0].images)

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...] | None:
        """The class indices that make up each region; None for classes that exclude each other."""
        if self.regions is None:
            return None
        return tuple(tuple(map(self.values.index, region)) for region in self.regions)

    def case(self, name: str) -> CaseFiles:
        """The case of that name. Raises UserError if there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise UserError(f"{self.folder} has no case {name!r}")


def read_case(
    files: CaseFiles,
    *,
    channels: int,
    values: Sequence[int],
    ignore_label: int | None = None,
) -> tuple[RawImage, npt.NDArray[np.int64] | None]:
    """The image and its classes (Z, H, W) int64, -1 where ignored; None without a mask.

    Raises UserError, naming the file, if one is missing or damaged, the image has not as many
    channels, the mask does not fit the image or holds numbers that are no label.
    """
    raw = read_raw(files.images)
    require_channels(raw, channels)
    if files.mask is None:
        return raw, None
    return raw, classes_of(read_labels(files.mask, raw), values, ignore_label)


def require_channels(raw: RawImage, channels: int) -> None:
    """Raise UserError, naming the file, unless the image has as many channels."""
    if raw.pixels.shape[0] != channels:
        files = " and ".join(map(str, raw.paths))
        raise UserError(f"{files}: got {raw.pixels.shape[0]} channels, expected {channels}")
