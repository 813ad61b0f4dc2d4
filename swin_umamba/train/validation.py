"""How good a model is on cases it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from swin_umamba.data import Case
from swin_umamba.metrics import dice
from swin_umamba.models import SegmentationModel
from swin_umamba.predict import predict_stack
from swin_umamba.train.config import TrainConfig
from swin_umamba.train.world import World

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
    """Whole images, segmented window by window as predictions are.

    Slices of one volume, which stand together in `cases`, are scored as one. Ignored pixels count
    as background in both. Several processes share the volumes.
    """

    def __init__(self, cases: Sequence[Case], config: TrainConfig, world: World) -> None:
        self.cases, self.config, self.world = cases, config, world
        names = [case.volume for case in cases]
        groups = [list(group) for _, group in groupby(range(len(names)), key=names.__getitem__)]
        self.volumes = groups[world.rank :: world.size]

    def __call__(self, model: SegmentationModel) -> Score:
        scores = self.world.gathered([self._scores(model, volume) for volume in self.volumes])
        table = np.array(scores).reshape(-1, self.config.num_classes - 1)
        return Score(_mean(table), tuple(_mean(column) for column in table.T))

    def _scores(self, model: SegmentationModel, volume: list[int]) -> list[float]:
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
            )
            predicted.append(np.where(masks < 0, 0, probabilities.argmax(1)))
            true.append(np.maximum(masks, 0))
        values: list[float] = dice(
            np.concatenate(predicted), np.concatenate(true), config.num_classes
        ).tolist()
        return values


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    # Sorted, so that the order in which processes deliver makes no difference.
    defined = np.sort(values[~np.isnan(values)])
    return float(defined.mean()) if defined.size else None
