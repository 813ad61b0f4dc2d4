"""How good a model is on cases it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from swin_umamba.data import Case
from swin_umamba.metrics import dice
from swin_umamba.models import SegmentationModel
from swin_umamba.predict import predict
from swin_umamba.train.config import TrainConfig


def validate(model: SegmentationModel, cases: Sequence[Case], config: TrainConfig) -> float | None:
    """Mean DSC over the classes and volumes where it is defined; None if there are none.

    Slices of one volume, which stand together in `cases`, are scored as one. Ignored pixels count
    as background in both.
    """
    scores = [np.empty(0)]
    for _, slices in groupby(cases, key=lambda case: case.volume or case.name):
        predicted, true = [], []
        for case in slices:
            labels = predict(
                model, case.image, patch_size=config.patch_size, overlap=config.overlap
            ).argmax(0)
            predicted.append(np.where(case.mask < 0, 0, labels))
            true.append(np.maximum(case.mask, 0))
        scores.append(dice(np.stack(predicted), np.stack(true), config.num_classes))
    values = np.concatenate(scores)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
