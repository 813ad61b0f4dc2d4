"""How images become the network's input, and how its output becomes the content of mask files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor

from swin_umamba.common.records import Count, Listed, Positive, Record, nested, record
from swin_umamba.data.datasets.dataset import Dataset, require_channels
from swin_umamba.data.io.raw import RawImage, RawLabels, classes_of
from swin_umamba.data.prepare.batch_size import gpu_memory, propose_batch_size
from swin_umamba.data.prepare.cropping import box_of_all, nonzero_box
from swin_umamba.data.prepare.deciding import (
    check_regions,
    decide_classes,
    decide_regions,
    decide_tensor,
)
from swin_umamba.data.prepare.fingerprint import Fingerprint, Intensity, take_fingerprint
from swin_umamba.data.prepare.normalization import Normalization, Scheme, scheme_of
from swin_umamba.data.prepare.placement import Placement
from swin_umamba.data.prepare.resampling import resample_image, resample_labels
from swin_umamba.data.prepare.rules import (
    MOST_RESAMPLED,
    SAME_SPACING,
    masked_channels,
    median_slice,
    patch_size_for,
    slicing_axis,
)
from swin_umamba.data.prepare.slices import ArraySlices, NormalizedSlices, Slices
from swin_umamba.errors import UserError

Label = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]


@record
class Plan(Record):
    """Everything needed to treat a new image as in training; a run's plan.json.

    files_per_image, labels, values, ignore_label, file_ending: as in Dataset. normalization: one
    scheme per channel, see `data.normalization`. intensities: of the training cases' foreground,
    one per channel. axis: slicing axis of (Z, H, W). spacing: in-plane (rows, columns), to which
    slices are resampled. patch_size: (height, width), proposed for training. crop_to_nonzero:
    whether images are first cropped to their nonzero region. mask_normalization: per channel,
    whether its statistics use nonzero pixels only; empty for no channel. regions: the label values
    of each output, if outputs are sigmoid heads of overlapping regions, region_names their names,
    and regions_class_order the value that each writes, later ones over earlier ones; None for
    mutually exclusive classes. batch_size: proposed for training.
    """

    WHAT: ClassVar[str] = "plan"
    SCHEMA: ClassVar[int] = 2  # schema 1 had no number, and every field without a default here

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
    region_names: Annotated[tuple[str, ...], Listed] = ()
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
        check_regions(self.regions, self.region_names, self.regions_class_order, self.values)

    @property
    def in_channels(self) -> int:
        return len(self.channel_names)

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.values)

    @property
    def num_outputs(self) -> int:
        """Number of network outputs: one per class, or per region."""
        return self.num_classes if self.regions is None else len(self.regions)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The classes or regions of the outputs."""
        return tuple(self.labels) if self.regions is None else self.region_names

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """The function that turns network outputs into probabilities."""
        return "softmax" if self.regions is None else "sigmoid"

    @property
    def region_classes(self) -> tuple[tuple[int, ...], ...] | None:
        """The class indices that make up each region; None for mutually exclusive classes."""
        if self.regions is None:
            return None
        return tuple(tuple(map(self.values.index, region)) for region in self.regions)

    def decide(self, probabilities: npt.NDArray[Any], *, axis: int = 0) -> npt.NDArray[np.int64]:
        """Class indices from probabilities of the `num_outputs` along an axis, which is removed.

        The most probable class; for regions, the value of every region above 0.5, later ones in
        `regions_class_order` over earlier ones, and background elsewhere.
        """
        if probabilities.shape[axis] != self.num_outputs:
            raise ValueError(
                f"probabilities: got shape {probabilities.shape}, expected {self.num_outputs}"
                f" along axis {axis}"
            )
        if self._written is None:
            return decide_classes(probabilities, axis)
        return decide_regions(probabilities, self._written, axis)

    def decide_tensor(self, probabilities: Tensor, *, axis: int = 0) -> Tensor:
        """`decide` on a tensor's own device."""
        return decide_tensor(probabilities, self._written, axis)

    @property
    def _written(self) -> list[int] | None:
        """The class index that each region writes."""
        if self.regions_class_order is None:
            return None
        return [self.values.index(value) for value in self.regions_class_order]

    @property
    def outside(self) -> npt.NDArray[np.float32]:
        """The probabilities (num_outputs,) of pixels outside of the crop: background."""
        found = np.zeros(self.num_outputs, np.float32)
        if self.activation == "softmax":
            found[0] = 1
        return found

    def placement(self, raw: RawImage) -> Placement:
        """The position of the slices of `preprocess(raw)` in the image."""
        z, y, x = raw.pixels.shape[1:]
        box = nonzero_box(raw.pixels) if self.crop_to_nonzero else box_of_all((z, y, x))
        kept = [part.stop - part.start for part in box]
        axis = self.axis_of(raw)
        return Placement((z, y, x), axis, box, self._resampled(kept, raw, axis))

    def axis_of(self, raw: RawImage) -> int:
        """The slicing axis of an image: `axis` for a volume, 0 for a 2-D image, which is one slice
        whichever axis volumes are sliced along."""
        return self.axis if raw.pixels.shape[1] > 1 else 0

    def preprocess(self, raw: RawImage) -> npt.NDArray[np.float32]:
        """The network's input slices (Z, C, H, W) float32, with Z along `axis_of(raw)`.

        Cropped to the nonzero region if the plan says so, normalized per image or volume, then
        resampled in-plane to `spacing` if the image's differs by more than 1 %. Raises UserError,
        naming the file, for the wrong number of channels.
        """
        require_channels(raw, self.in_channels)
        placement = self.placement(raw)
        slices = self._normalized(raw, placement)
        whole = np.empty(slices.shape, np.float32)
        slices.fill(whole, 0)
        return resample_image(whole, placement.size)

    def slices(self, raw: RawImage, placement: Placement) -> Slices:
        """The result of `preprocess`, computed part by part on request.

        placement: of this image. If it has to be resampled, all of it is computed now.
        """
        require_channels(raw, self.in_channels)
        if placement.size == placement.kept:
            return self._normalized(raw, placement)
        return ArraySlices(self.preprocess(raw))

    def _normalized(self, raw: RawImage, placement: Placement) -> NormalizedSlices:
        inside = dataclasses.replace(raw, pixels=raw.pixels[(slice(None), *placement.box)])
        found = Normalization(inside, self.normalization, self.intensities, self._masked)
        return NormalizedSlices(found, placement.axis)

    def preprocess_labels(
        self, classes: npt.NDArray[np.int64], raw: RawImage
    ) -> npt.NDArray[np.int64]:
        """Class indices (Z, H, W) from `read_classes`, as slices like those of `preprocess`."""
        placement = self.placement(raw)
        inside = np.moveaxis(classes[placement.box], placement.axis, 0)
        return resample_labels(inside, placement.size)

    @property
    def _masked(self) -> tuple[bool, ...]:
        return self.mask_normalization or (False,) * self.in_channels

    def read_classes(self, labels: RawLabels) -> npt.NDArray[np.int64]:
        """Class indices (Z, H, W), -1 where ignored. UserError for unknown values."""
        return classes_of(labels, self.values, self.ignore_label)

    def restore(self, slices: npt.NDArray[Any], raw: RawImage) -> npt.NDArray[Any]:
        """Bring predictions for the slices of `preprocess(raw)` onto the grid of `raw`'s files.

        slices: integer labels (Z, H, W), resampled by nearest neighbor; or float probabilities (Z,
        K, H, W), resampled linearly. Cropped-off pixels become background. Returns (Z, H, W) or (K,
        Z, H, W) in the axis order of `raw.pixels`; a view if the grids are the same. If they
        differ, call `decide` after this, not before.
        """
        placement = self.placement(raw)
        expected = (placement.depth, *placement.size)
        found = (slices.shape[0], *slices.shape[-2:])
        if slices.ndim not in (3, 4) or found != expected:
            raise ValueError(f"slices: got shape {slices.shape}, expected slices of {expected}")
        if slices.ndim == 3:
            labels = resample_labels(slices, placement.kept)
            return np.moveaxis(placement.padded(labels, np.zeros(())), 0, placement.axis)
        if placement.kept != placement.size:
            slices = resample_image(slices, placement.kept, order=1)
        return np.moveaxis(placement.padded(slices, self.outside), 0, placement.axis + 1)

    def _resampled(self, kept: Sequence[int], raw: RawImage, axis: int) -> tuple[int, int]:
        """Slice size after resampling, for a part (Z, H, W) of an image.

        Raises UserError, naming the file, if the result would exceed MOST_RESAMPLED values.
        """
        sizes = [n for i, n in enumerate(kept) if i != axis]
        spacings = [s for i, s in enumerate(raw.spacing) if i != axis]
        ratios = [own / wanted for own, wanted in zip(spacings, self.spacing, strict=True)]
        if all(abs(ratio - 1) <= SAME_SPACING for ratio in ratios):
            return sizes[0], sizes[1]
        h, w = (max(round(n * ratio), 1) for n, ratio in zip(sizes, ratios, strict=True))
        if kept[axis] * h * w * self.in_channels > MOST_RESAMPLED:
            raise UserError(
                f"{raw.paths[0]} has the spacing {raw.spacing} (z, y, x) and would have"
                f" {kept[axis]} slices of {h}x{w} pixels at the plan's {self.spacing}, more"
                f" than the limit of {MOST_RESAMPLED * 4 >> 30} GiB: one of the spacings is wrong"
            )
        return h, w


def make_plan(
    dataset: Dataset,
    *,
    fingerprint: Fingerprint | None = None,
    axis: int | None = None,
    patch_size: tuple[int, int] | None = None,
    normalization: tuple[Scheme, ...] | None = None,
    memory: int | None = None,
) -> Plan:
    """Choose everything not given by nnU-Net's rules; see `data.prepare.rules`.

    fingerprint: by default of all cases. axis, spacing: by default `slicing_axis` and the in-plane
    median. patch_size: by default `patch_size_for` the median slice. normalization: by default from
    the channel names, see `data.normalization.scheme_of`. Images are cropped to their nonzero
    region; if less than three quarters remains, z-scores use nonzero pixels only. memory: of the
    GPU to propose a batch size for, in bytes; by default this machine's.
    """
    fingerprint = take_fingerprint(dataset) if fingerprint is None else fingerprint
    axis = slicing_axis(fingerprint) if axis is None else axis
    if axis not in (0, 1, 2):
        raise UserError(f"axis: got {axis!r}, expected 0, 1 or 2 of (Z, H, W)")
    spacing = np.median(fingerprint.spacings, axis=0)
    rows, columns = (float(s) for i, s in enumerate(spacing) if i != axis)
    if patch_size is None:
        patch_size = patch_size_for(median_slice(fingerprint, axis))
    schemes = normalization or tuple(map(scheme_of, dataset.channel_names))
    try:
        return Plan(
            dataset=dataset.name,
            channel_names=dataset.channel_names,
            files_per_image=dataset.files_per_image,
            labels=dataset.labels,
            values=dataset.values,
            ignore_label=dataset.ignore_label,
            file_ending=dataset.file_ending,
            normalization=schemes,
            intensities=fingerprint.intensities,
            axis=axis,
            spacing=(rows, columns),
            patch_size=patch_size,
            crop_to_nonzero=True,
            mask_normalization=masked_channels(fingerprint, schemes),
            regions=dataset.regions,
            region_names=dataset.region_names,
            regions_class_order=dataset.regions_class_order,
            batch_size=propose_batch_size(
                patch_size,
                sum(fingerprint.pixels) + fingerprint.ignored,
                gpu_memory() if memory is None else memory,
            ),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
