"""How good a model is on cases it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swin_umamba.common.devices import amp_on
from swin_umamba.data import Case
from swin_umamba.drawing.overlays import save_overlay
from swin_umamba.inference.predictor import predict_stack
from swin_umamba.metrics import dice
from swin_umamba.models import SegmentationModel
from swin_umamba.runs.config import TrainConfig
from swin_umamba.train.world import World

Labels = npt.NDArray[np.int64]

SLICES = 16  # of a volume at a time
PIXELS = 8 * 320 * 320  # of all windows at a time


@dataclass(frozen=True)
class Score:
    """Mean DSC over the classes and volumes where it is defined, and of each class alone.

    None where there are none.
    """

    dsc: float | None
    classes: tuple[float | None, ...]  # without the background


class Validation:
    """Whole images, segmented window by window as predictions are, in the training's precision.

    Slices of one volume, which stand together in `cases`, are scored as one. Ignored pixels count
    as background in both. Several processes share the volumes. overlays: so many of this
    process's volumes are drawn into the run's folder, each by its slice with most of the truth.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        config: TrainConfig,
        world: World,
        *,
        folder: Path,
        overlays: int = 0,
    ) -> None:
        self.folder, self.overlays = folder, overlays
        self.cases, self.config, self.world = cases, config, world
        self.amp = amp_on(world.device, config.amp)
        names = [case.volume for case in cases]
        groups = [list(group) for _, group in groupby(range(len(names)), key=names.__getitem__)]
        self.volumes = groups[world.rank :: world.size]

    def __call__(self, model: SegmentationModel, iteration: int) -> Score:
        own = []
        for number, volume in enumerate(self.volumes):
            predicted, true = self._segmented(model, volume)
            own.append(dice(predicted, true, self.config.num_classes).tolist())
            if number < self.overlays:
                self._draw(volume, predicted, true, iteration)
        scores = self.world.gathered(own)
        table = np.array(scores).reshape(-1, self.config.num_classes - 1)
        return Score(_mean(table), tuple(_mean(column) for column in table.T))

    def _segmented(self, model: SegmentationModel, volume: list[int]) -> tuple[Labels, Labels]:
        """Prediction and truth of a volume (Z, H, W), both 0 where ignored."""
        config = self.config
        height, width = config.patch_size
        predicted, true = [], []
        for first in range(0, len(volume), SLICES):
            cases = [self.cases[index] for index in volume[first : first + SLICES]]
            masks = np.stack([case.mask for case in cases])
            probabilities = predict_stack(
                model,
                np.stack([case.image for case in cases]),
                patch_size=config.patch_size,
                overlap=config.overlap,
                batch_size=max(PIXELS // (height * width), 1),
                amp=self.amp,
            )
            predicted.append(np.where(masks < 0, 0, probabilities.argmax(1)))
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
