"""What is exported: a run's folder, or a file of weights."""

from __future__ import annotations

from pathlib import Path

from swin_umamba.data import Plan
from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel, create_model
from swin_umamba.weights import load_weights, read_config

BEST, LAST, PLAN = "best.safetensors", "model.safetensors", "plan.json"


def load_source(source: Path, *, last: bool = False) -> tuple[SegmentationModel, Plan | None]:
    """The model and, of a run that has one, its plan.

    source: a run's folder, of which the best weights are taken if there are such and `last` does
    not ask for the last ones; or a file of `save_weights`. Raises UserError if it is neither.
    """
    plan = None
    weights = source
    if source.is_dir():
        best = source / BEST
        weights = best if best.is_file() and not last else source / LAST
        if (source / PLAN).is_file():
            plan = Plan.load(source / PLAN)
    try:
        model = create_model(**read_config(weights))
        load_weights(model, weights)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot export {source}: {error}") from error
    return model, plan
