"""What can be exported: a run folder, or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swin_umamba.errors import UserError
from swin_umamba.inference.network import require_finite
from swin_umamba.inference.sources import classes_to_clean
from swin_umamba.models import SegmentationModel
from swin_umamba.models.loading import load_model
from swin_umamba.runs.run import Run


def load_source(source: Path, *, last: bool = False) -> tuple[SegmentationModel, dict[str, Any]]:
    """The model and, for a run, how it is used: plan, overlap and keep_largest as in `Facts`.

    source: a run folder, whose best weights are used if there are any and `last` is False; or a
    file written by `save_weights`. Raises UserError if it is neither, or if a weight is not finite.
    """
    use: dict[str, Any] = {}
    weights = source
    if source.is_dir():
        run = Run.open(source)
        weights = run.weights("last" if last else "best")
        run.warn_if_unfinished()
        use = {
            "plan": run.plan,
            "overlap": run.config.overlap,
            "keep_largest": classes_to_clean(run),
        }
    try:
        model = load_model(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot export {source}: {error}") from error
    require_finite(model, str(weights))
    return model, use
