"""From an image to its mask with trained models: `Predictor`, and `Ensemble` of several.

Names are loaded at first use, since the rest of the package needs only some of these modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swin_umamba.inference.files import predict_files
    from swin_umamba.inference.predictor import Ensemble, Predictor

__all__ = ["Ensemble", "Predictor", "predict_files"]

_HOMES = {"Ensemble": "predictor", "Predictor": "predictor", "predict_files": "files"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
