"""Validate a model on held-out cases."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.devices import amp_on
from swin_umamba.data import Case, Plan
from swin_umamba.drawing.overlays import save_overlay
from swin_umamba.evaluate.scores import dsc_of
from swin_umamba.inference.network import NonFiniteError
from swin_umamba.inference.predictor import Predictor
from swin_umamba.loop.world import World
from swin_umamba.models import SegmentationModel
from swin_umamba.runs.config import TrainConfig

Labels = npt.NDArray[np.int64]

SLICES = 16  # slices of a volume at a time
PIXELS = 8 * 320 * 320  # windows of all slices at a time


@dataclass(frozen=True)
class Score:
    """The mean DSC over the classes, and of each class over the volumes for which it is defined.

    Defined as in `evaluate`. None if there are no values.
    """

    dsc: float | None
    classes: tuple[float | None, ...]  # without the background; or of every region

    @property
    def value(self) -> float | None:
        """Selects the best weights."""
        return self.dsc

    def facts(self) -> dict[str, Any]:
        """Its values for the log."""
        return {"dsc": self.dsc, "dsc_of_classes": list(self.classes)}


class Validation:
    """Segments whole images with a Predictor, in the training's precision.

    The images are preprocessed, and scored on their preprocessed grid. Consecutive slices of one
    volume in `cases` are scored as one. Ignored pixels count as background in both masks. Several
    processes share the volumes. plan: of the run; without one, the most probable class is
    predicted; with regions, they are scored instead of the classes. overlays: number of this
    process's volumes to draw into the run folder, each by its slice with most of the ground truth.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        config: TrainConfig,
        world: World,
        *,
        folder: Path,
        overlays: int = 0,
        plan: Plan | None = None,
    ) -> None:
        self.plan, self.regions = plan, None if plan is None else plan.region_classes
        self.folder, self.overlays = folder, overlays
        self.cases, self.config, self.world = cases, config, world
        self.amp = amp_on(world.device, config.amp)
        names = [case.volume for case in cases]
        groups = [list(group) for _, group in groupby(range(len(names)), key=names.__getitem__)]
        self.volumes = groups[world.rank :: world.size]

    def __call__(self, model: SegmentationModel, iteration: int) -> Score:
        """Segment and score all volumes. No scores, and a warning, if the model returns NaN."""
        # Once for all volumes, since CUDA graphs take time to capture; their memory is freed
        # afterwards.
        predictor = self._predictor(model)
        own: list[list[float] | None] = []
        for number, volume in enumerate(self.volumes):
            try:
                predicted, true = self._segmented(predictor, volume)
            except NonFiniteError as error:
                own.append(None)
                warnings.warn(f"validation at iteration {iteration}: {error}", stacklevel=2)
                break
            own.append(list(dsc_of(predicted, true, self.config.num_classes, self.regions)))
            if number < self.overlays:
                self._draw(volume, predicted, true, iteration)
        scores = self.world.gathered(own)
        columns = self.config.num_classes - 1 if self.regions is None else len(self.regions)
        if None in scores:
            return Score(None, (None,) * columns)
        table = np.array(scores).reshape(-1, columns)
        classes = tuple(_mean(column) for column in table.T)
        return Score(_mean(np.array([mean for mean in classes if mean is not None])), classes)

    def _predictor(self, model: SegmentationModel) -> Predictor:
        config = self.config
        height, width = config.patch_size
        return Predictor(
            model,
            plan=self.plan,
            patch_size=config.patch_size,
            overlap=config.overlap,
            batch_size=max(PIXELS // (height * width), 1),
            amp=self.amp,
            cuda_graph="auto" if config.cuda_graph is not False else False,
        )

    def _segmented(self, predictor: Predictor, volume: list[int]) -> tuple[Labels, Labels]:
        """Prediction and truth of a volume (Z, H, W), both 0 where ignored."""
        predicted, true = [], []
        for first in range(0, len(volume), SLICES):
            cases = [self.cases[index] for index in volume[first : first + SLICES]]
            masks = np.stack([case.mask for case in cases])
            labels = predictor.labels_of_slices(np.stack([case.image for case in cases]))
            predicted.append(np.where(masks < 0, 0, labels).astype(np.int64))
            true.append(np.maximum(masks, 0))
        return np.concatenate(predicted), np.concatenate(true)

    def _draw(self, volume: list[int], predicted: Labels, true: Labels, iteration: int) -> None:
        at = int((true > 0).sum((1, 2)).argmax())
        case = self.cases[volume[at]]
        save_overlay(self.folder, case.volume, iteration, case.image, true[at], predicted[at])


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    # Sorted, so that the order in which processes deliver makes no difference.
    defined = np.sort(values[~np.isnan(values)])
    return float(defined.mean()) if defined.size else None
