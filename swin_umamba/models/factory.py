"""Build a model by its name, with or without weights."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from swin_umamba.models.registry import is_baseline, model_class
from swin_umamba.weights.load import load_pretrained, new_heads
from swin_umamba.weights.saved import load_weights

if TYPE_CHECKING:
    from swin_umamba.models.base import SegmentationModel
    from swin_umamba.weights.report import Report


def create_model(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    deep_supervision: bool = True,
    pretrained: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> SegmentationModel:
    """Build a model by name: see `model_names()` and `baseline_names()`.

    in_channels: channels of the image. out_channels: classes, background included.
    deep_supervision: return the logits of all scales, not of the finest alone; may be switched
    later by the attribute of that name. pretrained: a file of ours or an original checkpoint, as
    `swin_umamba.weights.load_pretrained` takes it; for a baseline, a file of ours alone.
    A warning names the output layers that start at random since the file has other classes.
    kwargs: what the model's class takes besides, such as dims, depths, d_state, drop_path_rate and
    backend.
    """
    model = model_class(name)(
        in_channels, out_channels, deep_supervision=deep_supervision, **kwargs
    )
    model.config = {
        "name": name,
        "in_channels": in_channels,
        "out_channels": out_channels,
        **kwargs,
    }
    if pretrained is not None:
        if is_baseline(name):  # no encoder of ours: only whole files of ours fit
            load_weights(model, pretrained)
        else:
            model.pretrained_report = load_pretrained(model, pretrained)
            _warn_of_new_heads(model.pretrained_report)
    return model


def _warn_of_new_heads(report: Report) -> None:
    heads = new_heads(report)
    if heads:
        warnings.warn(
            f"{report.path} is of another number of classes: {len(heads)} tensors of the output"
            f" layers are new and random, and need training: {', '.join(heads)}",
            stacklevel=3,
        )
