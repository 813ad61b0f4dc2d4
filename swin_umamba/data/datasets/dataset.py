"""The user's dataset: the files of each case, and the meaning of labels."""

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
    """The files of one case: an image of one or more files, its mask, and its instance map."""

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None
    instances: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """The result of `open_dataset`.

    labels: class names with the index of each class in the network's output, background 0 first,
    without the ignore label. values: the value of each class in the mask files, by class index;
    usually 0, 1, 2, ..., but (0, 255) for black and white masks. ignore_label: the value of
    unannotated pixels. file_ending: of masks, such as ".png".

    regions: for region-based labels, the mask values that make up each region; regions may overlap,
    and each is one output of the network. None otherwise. region_names: their names.
    regions_class_order: the value that each region writes into a prediction, later ones over
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
        """Files per image: 1, or the number of channels."""
        return len(self.cases[0].images)

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...] | None:
        """The class indices that make up each region; None for mutually exclusive classes."""
        if self.regions is None:
            return None
        return tuple(tuple(map(self.values.index, region)) for region in self.regions)

    def case(self, name: str) -> CaseFiles:
        """The case with that name. Raises UserError if there is none."""
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

    Raises UserError, naming the file, if one is missing or damaged, the image has the wrong number
    of channels, the mask does not match the image, or it contains a value that is no label.
    """
    raw = read_raw(files.images)
    require_channels(raw, channels)
    if files.mask is None:
        return raw, None
    return raw, classes_of(read_labels(files.mask, raw), values, ignore_label)


def require_channels(raw: RawImage, channels: int) -> None:
    """Raise UserError, naming the file, unless the image has the expected number of channels."""
    if raw.pixels.shape[0] != channels:
        files = " and ".join(map(str, raw.paths))
        raise UserError(f"{files}: got {raw.pixels.shape[0]} channels, expected {channels}")
