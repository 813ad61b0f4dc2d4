"""Models by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

from swin_umamba.models.base import SegmentationModel
from swin_umamba.weights.load import load_pretrained
from swin_umamba.weights.saved import load_weights

_MODELS: dict[str, type[SegmentationModel]] = {}
_BASELINES: set[str] = set()
_Model = TypeVar("_Model", bound=type[SegmentationModel])


def register_model(name: str, *, baseline: bool = False) -> Callable[[_Model], _Model]:
    """Class decorator: make the model known to `create_model` as `name`.

    baseline: it is none of ours, but there to compare with.
    """

    def register(model: _Model) -> _Model:
        if name in _MODELS:
            raise ValueError(f"name: {name!r} is already {_MODELS[name].__name__}")
        _MODELS[name] = model
        if baseline:
            _BASELINES.add(name)
        return model

    return register


def model_names() -> list[str]:
    """Names of the Swin-UMamba models that `create_model` knows, sorted."""
    return sorted(_MODELS.keys() - _BASELINES)


def baseline_names() -> list[str]:
    """Names of other networks that `create_model` knows, for comparison, sorted."""
    return sorted(_BASELINES)


def takes_patch_size(name: str) -> bool:
    """Whether the baseline of that name is built for a `patch_size` (H, W) of images.

    Swin-UMamba†'s argument of that name is another: the pixels of a patch of its embedding.
    """
    return name in _BASELINES and "patch_size" in signature(_MODELS[name]).parameters


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
    kwargs: what the model's class takes besides, such as dims, depths, d_state, drop_path_rate and
    backend.
    """
    if name not in _MODELS:
        raise ValueError(
            f"name: got {name!r}, expected one of {', '.join((*model_names(), *baseline_names()))}"
        )
    model = _MODELS[name](in_channels, out_channels, deep_supervision=deep_supervision, **kwargs)
    model.config = {
        "name": name,
        "in_channels": in_channels,
        "out_channels": out_channels,
        **kwargs,
    }
    if pretrained is not None:
        if name in _BASELINES:  # no encoder of ours: only whole files of ours fit
            load_weights(model, pretrained)
        else:
            model.pretrained_report = load_pretrained(model, pretrained)
    return model
