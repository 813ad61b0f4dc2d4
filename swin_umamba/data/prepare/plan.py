"""How images become what the network sees, and its output becomes what the user's files hold."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from swin_umamba.common.records import Count, Listed, Positive, Record, nested, record
from swin_umamba.data.datasets.dataset import Dataset, require_channels
from swin_umamba.data.io.raw import RawImage, RawLabels, classes_of
from swin_umamba.data.prepare.fingerprint import Fingerprint, Intensity, take_fingerprint
from swin_umamba.data.prepare.normalization import Scheme, normalize_image, scheme_of
from swin_umamba.data.prepare.resampling import resample_image, resample_labels
from swin_umamba.errors import UserError

# Patches are as large as the median slice, within these sides, and rounded up to a multiple.
MIN_SIDE, MAX_SIDE, MULTIPLE = 64, 512, 32
# Spacings that differ by less are taken for the same: headers round.
SAME_SPACING = 0.01


Label = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]


@record
class Plan(Record):
    """Everything that treats a new image as training did; plan.json of a run.

    files_per_image, labels, values, ignore_label, file_ending: as in Dataset. normalization: one
    name a channel, see `data.normalization`. intensities: of the training cases' foreground, one
    a channel. axis: of (Z, H, W), the one that is sliced along. spacing: in-plane (rows, columns),
    to which slices are resampled. patch_size: (height, width), proposed for training.
    crop_to_nonzero: whether images are cropped to what is not zero before anything else.
    mask_normalization: for each channel, whether its statistics are of what is not zero alone;
    empty for no channel. regions: the label values of each output, where outputs are sigmoid heads
    of overlapping regions, and regions_class_order the value that each writes, later ones over
    earlier ones; None for classes that exclude each other. batch_size: proposed for training.
    """

    WHAT: ClassVar[str] = "plan"
    SCHEMA: ClassVar[int] = 2  # 1 had no number, and all but what has a default here

    dataset: str
    channel_names: Annotated[tuple[str, ...], Listed]
    files_per_image: Count
    labels: dict[str, Label]
    values: Annotated[tuple[Label, ...], Listed]
    ignore_label: Label | None
    file_ending: str
    normalization: Annotated[tuple[Scheme, ...], Listed]
    intensities: Annotated[tuple[Annotated[Intensity, nested(Intensity)], ...], Listed]
    axis: Annotated[int, Field(ge=0, le=2)]
    spacing: Annotated[tuple[Positive, Positive], Listed]
    patch_size: Annotated[tuple[Count, Count], Listed]
    crop_to_nonzero: bool = False
    mask_normalization: Annotated[tuple[bool, ...], Listed] = ()
    regions: Annotated[tuple[Annotated[tuple[Label, ...], Listed], ...], Listed] | None = None
    regions_class_order: Annotated[tuple[Label, ...], Listed] | None = None
    batch_size: Count | None = None

    def __post_init__(self) -> None:
        channels = len(self.channel_names)
        if channels < 1:
            raise ValueError("channel_names: got none, expected one or more")
        for name in ("normalization", "intensities"):
            if len(getattr(self, name)) != channels:
                raise ValueError(f"{name}: got {len(getattr(self, name))}, expected {channels}")
        if len(self.mask_normalization) not in (0, channels):
            raise ValueError(
                f"mask_normalization: got {len(self.mask_normalization)}, expected {channels}"
            )
        if len(self.values) != len(self.labels) or len(self.values) < 2:
            raise ValueError(f"values: got {self.values!r}, expected one for each label")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values: got {self.values!r}, expected each once")

    @property
    def in_channels(self) -> int:
        return len(self.channel_names)

    @property
    def num_classes(self) -> int:
        """With the background."""
        return len(self.values)

    def preprocess(self, raw: RawImage) -> npt.NDArray[np.float32]:
        """The slices (Z, C, H, W) float32 that the network sees, Z along `axis`.

        Normalised per image or volume, then resampled in-plane to `spacing` if the image's own
        differs by more than 1 %. Nothing is cropped (nnU-Net's crop to nonzero is left out) or
        padded. Raises UserError, naming the file, for another number of channels.
        """
        require_channels(raw, self.in_channels)
        image = normalize_image(raw, self.normalization, self.intensities)
        slices = np.moveaxis(image, self.axis + 1, 0)
        return resample_image(slices, self._slice_size(raw))

    def preprocess_labels(
        self, classes: npt.NDArray[np.int64], raw: RawImage
    ) -> npt.NDArray[np.int64]:
        """Class indices (Z, H, W) as `read_classes` gives them, as slices like `preprocess`'s."""
        return resample_labels(np.moveaxis(classes, self.axis, 0), self._slice_size(raw))

    def read_classes(self, labels: RawLabels) -> npt.NDArray[np.int64]:
        """Class indices (Z, H, W), -1 where ignored. UserError for unknown numbers."""
        return classes_of(labels, self.values, self.ignore_label)

    def restore(self, slices: npt.NDArray[Any], raw: RawImage) -> npt.NDArray[Any]:
        """Put predictions on `preprocess(raw)`'s slices onto the grid of `raw`'s files.

        slices: labels (Z, H, W) of whole numbers, resampled by nearest neighbour; or
        probabilities or logits (Z, K, H, W) in floats, resampled linearly. Returns (Z, H, W) or
        (K, Z, H, W) in the axis order of `raw.pixels`; where the grids are the same, a view. Where
        they differ, argmax is better taken after than before.
        """
        kept = [n for i, n in enumerate(raw.pixels.shape[1:]) if i != self.axis]
        size = kept[0], kept[1]
        expected = (raw.pixels.shape[self.axis + 1], *self._slice_size(raw))
        found = (slices.shape[0], *slices.shape[-2:])
        if slices.ndim not in (3, 4) or found != expected:
            raise ValueError(f"slices: got shape {slices.shape}, expected slices of {expected}")
        if slices.ndim == 3:
            return np.moveaxis(resample_labels(slices, size), 0, self.axis)
        if size == slices.shape[-2:]:
            return np.moveaxis(slices, 0, self.axis + 1)
        return np.moveaxis(resample_image(slices, size, order=1), 0, self.axis + 1)

    def _slice_size(self, raw: RawImage) -> tuple[int, int]:
        """The size in pixels of a slice after resampling."""
        sizes = [n for i, n in enumerate(raw.pixels.shape[1:]) if i != self.axis]
        spacings = [s for i, s in enumerate(raw.spacing) if i != self.axis]
        ratios = [own / wanted for own, wanted in zip(spacings, self.spacing, strict=True)]
        if all(abs(ratio - 1) <= SAME_SPACING for ratio in ratios):
            return sizes[0], sizes[1]
        h, w = (max(round(n * ratio), 1) for n, ratio in zip(sizes, ratios, strict=True))
        return h, w


def make_plan(
    dataset: Dataset,
    *,
    fingerprint: Fingerprint | None = None,
    axis: int | None = None,
    patch_size: tuple[int, int] | None = None,
    normalization: tuple[Scheme, ...] | None = None,
) -> Plan:
    """Decide by nnU-Net's rules what is not given.

    fingerprint: by default of all cases. axis: the one of the coarsest median spacing, the first
    of (Z, H, W) where none is coarser by more than 1 %; 2-D images have only that. spacing: the
    in-plane median. patch_size: the median slice, each side rounded up to a multiple of 32
    within 64 and 512. normalization: by the channels' names, see `data.normalization.scheme_of`.
    """
    fingerprint = take_fingerprint(dataset) if fingerprint is None else fingerprint
    spacing = np.median(fingerprint.spacings, axis=0)
    if axis is None:
        volumes = any(shape[0] > 1 for shape in fingerprint.shapes)
        coarsest = int(spacing.argmax())
        axis = coarsest if volumes and spacing[coarsest] > (1 + SAME_SPACING) * spacing[0] else 0
    if axis not in (0, 1, 2):
        raise UserError(f"axis: got {axis!r}, expected 0, 1 or 2 of (Z, H, W)")
    rows, columns = (float(s) for i, s in enumerate(spacing) if i != axis)
    if patch_size is None:
        scaled = np.array(fingerprint.shapes) * np.array(fingerprint.spacings) / spacing
        height, width = (
            int(np.clip(-(-n // MULTIPLE) * MULTIPLE, MIN_SIDE, MAX_SIDE))
            for i, n in enumerate(np.round(np.median(scaled, axis=0)))
            if i != axis
        )
        patch_size = height, width
    try:
        return Plan(
            dataset=dataset.name,
            channel_names=dataset.channel_names,
            files_per_image=dataset.files_per_image,
            labels=dataset.labels,
            values=dataset.values,
            ignore_label=dataset.ignore_label,
            file_ending=dataset.file_ending,
            normalization=normalization or tuple(map(scheme_of, dataset.channel_names)),
            intensities=fingerprint.intensities,
            axis=axis,
            spacing=(rows, columns),
            patch_size=patch_size,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
