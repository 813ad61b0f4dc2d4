"""Swin-UMamba: medical image segmentation with selective scans.

Names are imported lazily, so that commands which need no model do not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from swin_umamba._moved import install as _install_old_names

if TYPE_CHECKING:
    from swin_umamba.inference.predictor import Predictor
    from swin_umamba.models import create_model, model_names
    from swin_umamba.models.ss2d import SS2D
    from swin_umamba_ops import __version__

__all__ = ["SS2D", "Predictor", "__version__", "create_model", "model_names"]

_HOMES = {
    "SS2D": "swin_umamba.models.ss2d",
    "Predictor": "swin_umamba.inference.predictor",
    "create_model": "swin_umamba.models",
    "model_names": "swin_umamba.models",
    "__version__": "swin_umamba_ops",
}
_MODULES = ("losses", "metrics", "models", "summary", "weights")

_install_old_names()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
