"""From an image to its mask, with one trained model or several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.data import Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.errors import UserError
from swin_umamba.inference.arrays import predict, predict_labels, predict_stack
from swin_umamba.inference.defaults import default_plan
from swin_umamba.inference.images import ImageLike, Spacing, as_raw, without_slice_axis
from swin_umamba.inference.member import Member
from swin_umamba.inference.network import Network, TorchNetwork
from swin_umamba.inference.postprocessing import keep_largest
from swin_umamba.inference.record import MODELS
from swin_umamba.inference.scratch import scratch
from swin_umamba.inference.sources import Source, open_export, open_run
from swin_umamba.inference.windows import Windows, windows_at_once
from swin_umamba.models import SegmentationModel
from swin_umamba.runs.folds import folds_of

__all__ = ["Ensemble", "Predictor", "predict", "predict_labels", "predict_stack"]

DECIDED_VALUES = 1 << 21  # probabilities processed at a time

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.unsignedinteger[Any]]
"""Class indices in the smallest dtype that can represent all classes."""
PathLike = str | os.PathLike[str]


class Predictor:
    """Segments images according to the plan of a model's run: `labels = predictor(image)`.

    An image is normalized and resampled as in training and segmented window by window; its
    probabilities are brought back to the image's own grid, and the mask is decided there. This is
    done in bands of rows, so memory holds the image and its mask, but not all probabilities.

    model: a SegmentationModel, or another `inference.network.Network`. plan: of its run; without
    one, channels are z-scored, nothing is resampled, and masks contain the most probable class.
    patch_size: height and width of a window, by default the plan's. overlap: fraction of a window
    shared with the next; there, logits are averaged with Gaussian weights. mirror: average the
    logits of each window and its three mirror images, as nnU-Net does. amp: "off" for float32, on a
    GPU "bf16", "fp16" or "auto". batch_size: windows per batch; by default 4 on a CPU, and on a GPU
    as many as have 16 times 320x320 pixels. keep_largest: classes whose masks are reduced to the
    largest component. cuda_graph: with "auto", a GPU replays a CUDA graph for each of a few window
    shapes if that is measured to be faster; true or false override the choice.
    """

    def __init__(
        self,
        model: SegmentationModel | Network,
        *,
        plan: Plan | None = None,
        patch_size: tuple[int, int] | None = None,
        overlap: float = 0.5,
        mirror: bool = False,
        amp: str = "off",
        batch_size: int | None = None,
        keep_largest: Sequence[int] = (),
        cuda_graph: CudaGraph = "auto",
    ) -> None:
        network = (
            TorchNetwork(model, amp=amp, cuda_graph=cuda_graph)
            if isinstance(model, SegmentationModel)
            else model
        )
        size = plan.patch_size if patch_size is None and plan is not None else patch_size
        if size is None:
            raise ValueError("patch_size: got None, expected two sizes where there is no plan")
        self.model = network.model if isinstance(network, TorchNetwork) else network
        self.patch_size, self.overlap, self.mirror, self.amp = size, overlap, mirror, amp
        self.spaced = plan is not None
        self.plan = plan or default_plan(network.in_channels, network.out_channels, size)
        self.keep_largest = tuple(keep_largest)
        self.made_by: dict[str, Any] | None = None
        if batch_size is None:
            batch_size = windows_at_once(size, network.device)
        windows = Windows(size, overlap, batch_size)
        member = Member(network, self.plan, windows, mirror=mirror, spaced=self.spaced)
        self.members: tuple[Member, ...] = (member,)

    @classmethod
    def from_run(
        cls,
        folder: PathLike | Sequence[PathLike],
        *,
        checkpoint: str = "best",
        device: str = "auto",
        mirror: bool = False,
        amp: str = "off",
        postprocessing: bool = True,
        patch_size: tuple[int, int] | None = None,
        cuda_graph: CudaGraph = "auto",
    ) -> Predictor:
        """The model of a run folder; for several folders, their Ensemble.

        folder: of a run, or of the folds of `train --folds`, which count as several. checkpoint:
        "best", by validation (the last one if there was no validation), or "last". postprocessing:
        whether to apply the run's postprocessing. patch_size: height and width of windows; by
        default as in training. cuda_graph: as in Predictor. Raises UserError if the folder is not a
        run folder or lacks complete weights.
        """
        if isinstance(folder, str | os.PathLike):
            folders: Sequence[PathLike] = folds_of(Path(folder))
            if not folders:
                source = open_run(
                    Path(folder),
                    checkpoint=checkpoint,
                    device=device,
                    amp=amp,
                    postprocessing=postprocessing,
                    patch_size=patch_size,
                    cuda_graph=cuda_graph,
                )
                return cls._of(source, mirror=mirror, amp=amp)
        else:
            folders = folder
        options: dict[str, Any] = {"checkpoint": checkpoint, "device": device, "amp": amp}
        options |= {"mirror": mirror, "postprocessing": postprocessing, "patch_size": patch_size}
        options["cuda_graph"] = cuda_graph
        return Ensemble([cls.from_run(each, **options) for each in folders])

    @classmethod
    def from_export(
        cls,
        path: PathLike,
        *,
        overlap: float | None = None,
        mirror: bool = False,
        batch_size: int | None = None,
        postprocessing: bool = True,
    ) -> Predictor:
        """An ONNX file of a run, written by `swin-umamba export`; onnxruntime computes, on the CPU.

        overlap: by default the run's. Raises UserError if it is another file, or contains no plan.
        """
        source = open_export(Path(path), overlap=overlap, postprocessing=postprocessing)
        return cls._of(source, mirror=mirror, batch_size=batch_size)

    @classmethod
    def _of(cls, source: Source, *, mirror: bool, amp: str = "off", **options: Any) -> Predictor:
        found = cls(
            source.network,
            plan=source.plan,
            patch_size=source.patch_size,
            overlap=source.overlap,
            mirror=mirror,
            amp=amp,
            keep_largest=source.keep_largest,
            **options,
        )
        # Earlier versions decided before resampling, and did not record it.
        decided = {"decided": "on the image's grid"}
        found.made_by = {**source.facts(), "mirror": mirror, "amp": amp, **decided}
        if found.keep_largest:
            found.made_by["keep largest"] = list(found.keep_largest)
        return found

    def __call__(self, image: ImageLike, spacing: Spacing = None) -> npt.NDArray[np.int64]:
        """Class indices on the image's own grid: (H, W), or (Z, H, W) for several slices.

        image: an array (C, H, W) or (C, Z, H, W) in the units of the files that the model was
        trained on; the path of a file, or the paths of its channels; or a result of `read_raw`, for
        which the output is always (Z, H, W). spacing: of an array, (y, x) or (z, y, x) in the unit
        of the training files; by default the plan's, so that nothing is resampled. Raises UserError
        for an image that does not match, and for a model that returns NaN.
        """
        raw = self._raw(image, spacing)
        labels = without_slice_axis(self.segment(raw), image)
        return labels.astype(np.int64, copy=False)

    def probabilities(self, image: ImageLike, spacing: Spacing = None) -> Floats:
        """The probabilities that a call decides the mask from: (K, H, W) or (K, Z, H, W), in
        memory."""
        raw = self._raw(image, spacing)
        found = np.zeros((self.plan.num_outputs, *raw.pixels.shape[1:]), np.float32)
        self._add_up(raw, found)
        return without_slice_axis(found, image)

    def labels(self, image: Floats) -> npt.NDArray[np.int64]:
        """(H, W) class indices of one preprocessed slice (C, H, W)."""
        labels: npt.NDArray[np.int64] = self.labels_of_slices(image[None])[0].astype(np.int64)
        return labels

    def labels_of_slices(self, slices: Floats) -> Classes:
        """(Z, h, w) class indices of preprocessed slices (Z, C, h, w), on their grid."""
        if len(self.members) > 1:
            raise ValueError("slices: the models of an ensemble each preprocess images differently")
        labels = self._zeros((slices.shape[0], *slices.shape[2:]))
        for band in self.members[0].on_slices(slices, decided=True):
            band.of(labels)[...] = band.values
        return labels

    def segment(
        self, raw: RawImage, kept: Floats | None = None, folder: Path | None = None
    ) -> Classes:
        """Class indices (Z, H, W) on the grid of the image's files.

        kept: zeros (K, Z, H, W) to add the probabilities to. folder: for temporary files of an
        ensemble's probabilities if they exceed memory.
        """
        labels = self._zeros(raw.pixels.shape[1:])
        if kept is None and len(self.members) == 1:
            member = self.members[0]
            member.segment(raw, np.moveaxis(labels, member.plan.axis_of(raw), 0))
        elif kept is None:
            with scratch(folder, (self.plan.num_outputs, *labels.shape)) as summed:
                return self.segment(raw, summed)
        else:
            self._add_up(raw, kept)
            rows = max(DECIDED_VALUES // (kept.shape[0] * kept.shape[3]), 1)
            for z in range(labels.shape[0]):
                for start in range(0, labels.shape[1], rows):
                    found = self.plan.decide(kept[:, z, start : start + rows])
                    labels[z, start : start + rows] = found
        return keep_largest(labels, self.keep_largest)

    def _add_up(self, raw: RawImage, kept: Floats) -> None:
        """Add the mean of the models' probabilities to (K, Z, H, W)."""
        share = np.float32(1 / len(self.members))
        for member in self.members:
            slices = np.moveaxis(kept, member.plan.axis_of(raw) + 1, 0)
            for band in member.on_image(raw):
                place = band.of(slices)
                place += share * band.values

    def _zeros(self, shape: tuple[int, ...]) -> Classes:
        return np.zeros(shape, np.min_scalar_type(self.plan.num_classes - 1))

    def _raw(self, image: ImageLike, spacing: Spacing) -> RawImage:
        return as_raw(image, [member.plan for member in self.members], spacing)


class Ensemble(Predictor):
    """Several predictors as one: their probabilities are averaged on the image's own grid.

    Each uses its own plan, patch size and windows. They must have the same channels and classes. A
    class is reduced to its largest component if all of them do so. Raises UserError for predictors
    that do not match.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        if not predictors:
            raise ValueError("predictors: got none, expected at least one")
        first, *others = predictors
        for other in others:
            _require_same(first, other)
        self.members = tuple(member for each in predictors for member in each.members)
        self.model, self.plan, self.spaced = first.model, first.plan, first.spaced
        self.patch_size, self.overlap = first.patch_size, first.overlap
        self.mirror, self.amp = first.mirror, first.amp
        shared = set(first.keep_largest).intersection(*(other.keep_largest for other in others))
        self.keep_largest = tuple(sorted(shared))
        facts = [each.made_by for each in predictors]
        self.made_by = None if None in facts else {MODELS: facts}


def _require_same(first: Predictor, other: Predictor) -> None:
    one, two = first.plan, other.plan
    for what, mine, theirs in (
        ("channels", one.channel_names, two.channel_names),
        ("files of an image", one.files_per_image, two.files_per_image),
        ("classes", list(one.labels), list(two.labels)),
        ("numbers of classes", one.values, two.values),
        ("regions", one.regions, two.regions),
        ("orders of regions", one.regions_class_order, two.regions_class_order),
        ("datasets", *(None if each.spaced else "arrays" for each in (first, other))),
    ):
        if mine != theirs:
            raise UserError(
                f"{other.members[0].network.name} and {first.members[0].network.name} cannot be"
                f" averaged: their {what} differ, {theirs} and {mine}"
            )
