"""The files that prediction writes for an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import write_bytes
from swin_umamba.common.names import file_name
from swin_umamba.data import CaseFiles, mask_ending, read_raw, write_labels, write_probabilities
from swin_umamba.data.io.raw import RawImage
from swin_umamba.drawing.overlays import Canvas, png
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Predictor
from swin_umamba.inference.scratch import scratch
from swin_umamba.metrics.instances import instance_map

INSTANCES, OVERLAYS = "instances", "overlays"  # folders beside the masks
MOST_IN_PNG = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Extras:
    """What to write besides masks.

    probabilities: (K, Z, H, W) beside each mask as .npz; meanwhile an uncompressed copy is on disk
    if they exceed 64 MiB. instances: in a folder of that name, the 8-connected objects of class 1,
    numbered from 1 and split as in `swin_umamba.metrics.instance_f1`; only for images with one
    slice. overlays: in a folder of that name, PNGs of the classes over the image.
    """

    probabilities: bool = False
    instances: bool = False
    overlays: bool = False


MASKS_ALONE = Extras()


@dataclass(frozen=True)
class Targets:
    """The files requested for one case."""

    mask: Path
    probabilities: Path | None
    instances: Path | None
    overlay: Path | None

    @classmethod
    def of(cls, case: CaseFiles, output: Path, extras: Extras) -> Targets:
        mask = file_name(case.name, mask_ending(case.images[0]))
        return cls(
            output / mask,
            output / file_name(case.name, ".npz") if extras.probabilities else None,
            output / INSTANCES / mask if extras.instances else None,
            output / OVERLAYS / file_name(case.name, ".png") if extras.overlays else None,
        )

    def paths(self) -> list[Path]:
        asked = (self.mask, self.probabilities, self.instances, self.overlay)
        return [path for path in asked if path is not None]


@dataclass(frozen=True)
class Found:
    """The result for one image: labels and instances (Z, H, W), probabilities (K, Z, H, W)."""

    raw: RawImage
    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32] | None
    instances: npt.NDArray[np.int32] | None

    def write(self, target: Targets, wanted: set[Path], values: Sequence[int]) -> None:
        """Write the wanted targets, each atomically."""
        if target.probabilities in wanted and self.probabilities is not None:
            write_probabilities(target.probabilities, self.probabilities, self.raw)
        if target.instances in wanted and self.instances is not None:
            write_labels(target.instances, self.instances, self.raw)
        if target.overlay in wanted:
            _draw(target.overlay, self.raw, self.labels)
        # Last, since the presence of a mask means that its case is complete.
        if target.mask in wanted:
            write_labels(target.mask, self.labels, self.raw, values)


def segment_case(predictor: Predictor, paths: Sequence[Path], target: Targets) -> Found:
    """Read and segment one case. Raises UserError, naming the file, if it does not match."""
    raw = read_raw(paths)
    if target.instances is not None and (depth := raw.pixels.shape[1]) > 1:
        raise UserError(f"{paths[0]}: instances need images with one slice, it has {depth}")
    kept, folder = None, target.mask.parent
    if target.probabilities is None:
        labels = predictor.segment(raw, folder=folder)
    else:
        # The array outlives the file's name and handle.
        with scratch(folder, (predictor.plan.num_outputs, *raw.pixels.shape[1:])) as kept:
            labels = predictor.segment(raw, kept)
    objects = None
    if target.instances is not None:
        objects = instance_map(labels[0] == 1)[None]
        if target.instances.suffix.lower() == ".png" and objects.max() > MOST_IN_PNG:
            raise UserError(
                f"{paths[0]}: {objects.max()} instances, more than the {MOST_IN_PNG} that a PNG"
                " can number; give the image as TIFF"
            )
    return Found(raw, labels, kept, objects)


def _draw(path: Path, raw: RawImage, labels: npt.NDArray[Any]) -> None:
    """The classes over the image; for a volume, over the slice with the most labeled pixels."""
    at = int((labels > 0).sum((1, 2)).argmax())
    canvas = Canvas(raw.pixels[:, at], raw.spacing[1:])
    write_bytes(path, png(canvas.under(canvas.classes(labels[at]))))
