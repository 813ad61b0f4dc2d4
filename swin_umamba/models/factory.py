"""Create models by name, with or without weights."""

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
    """Create a model by name: see `model_names()` and `baseline_names()`.

    in_channels: channels of the image. out_channels: classes, background included.
    deep_supervision: return the logits of all scales rather than only the finest; can be switched
    later by the attribute of that name. pretrained: a file of this package or an original
    checkpoint, as accepted by `swin_umamba.weights.load_pretrained`; for a baseline, only files of
    this package. A warning names output layers that stay randomly initialized because the file has
    other classes. kwargs: further arguments of the model class, such as dims, depths, d_state,
    drop_path_rate and backend.
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
        if is_baseline(name):  # no encoder of ours: only complete files of this package match
            load_weights(model, pretrained)
        else:
            model.pretrained_report = load_pretrained(model, pretrained)
            _warn_of_new_heads(model.pretrained_report)
    return model


def _warn_of_new_heads(report: Report) -> None:
    heads = new_heads(report)
    if heads:
        warnings.warn(
            f"{report.path} has another number of classes: {len(heads)} tensors of the output"
            f" layers are randomly initialized and need training: {', '.join(heads)}",
            stacklevel=3,
        )
