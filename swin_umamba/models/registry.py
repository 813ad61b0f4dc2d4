"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from swin_umamba.models.base import SegmentationModel

_Model = TypeVar("_Model", bound="type[SegmentationModel]")

_MODELS: dict[str, type[SegmentationModel]] = {}
_BASELINES: set[str] = set()


def register_model(name: str, *, baseline: bool = False) -> Callable[[_Model], _Model]:
    """Class decorator: register the model with `create_model` under `name`.

    baseline: it is a network by other authors, for comparison.
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
    """Sorted names of the Swin-UMamba models of `create_model`."""
    return sorted(_MODELS.keys() - _BASELINES)


def baseline_names() -> list[str]:
    """Sorted names of the other networks of `create_model`, for comparison."""
    return sorted(_BASELINES)


def takes_patch_size(name: str) -> bool:
    """Whether the baseline with that name is built for a fixed `patch_size` (H, W) of images.

    Swin-UMamba†'s argument of the same name means something else: the patch of its embedding.
    """
    return name in _BASELINES and "patch_size" in signature(_MODELS[name]).parameters


def is_baseline(name: str) -> bool:
    """Whether the model with that name is a baseline."""
    return name in _BASELINES


def model_class(name: str) -> type[SegmentationModel]:
    """The class registered under a name. Raises ValueError, listing the names, if unknown."""
    if name not in _MODELS:
        raise ValueError(
            f"name: got {name!r}, expected one of {', '.join((*model_names(), *baseline_names()))}"
        )
    return _MODELS[name]
