"""`swin-umamba demo`: train on three quadrants of one real image and segment the fourth."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swin_umamba.demo.run import DemoResult, Pair, free_folder, load_pair, quadrants, run_demo

__all__ = ["DemoResult", "Pair", "free_folder", "load_pair", "quadrants", "run_demo"]


def __getattr__(name: str) -> Any:
    # Loaded when first used: `run` brings all that training needs.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.run"), name)
