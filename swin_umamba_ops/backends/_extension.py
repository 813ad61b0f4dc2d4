"""The compiled module `swin_umamba_ops._C`: whether it is there, and why not."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def load() -> tuple[ModuleType | None, str]:
    """The module, or None and the reason why it cannot be imported."""
    try:
        return importlib.import_module("swin_umamba_ops._C"), ""
    except ModuleNotFoundError:
        return None, "swin_umamba_ops was installed without its compiled module"
    except ImportError as error:
        return None, f"the compiled module does not load: {error}"


def module() -> ModuleType:
    """The compiled module. RuntimeError with the reason where there is none."""
    found, reason = load()
    if found is None:
        raise RuntimeError(reason)
    return found


def why_without(part: str) -> str:
    """Why the compiled module lacks a part ("cuda", "cpu"), as the build recorded it."""
    return f"swin_umamba_ops was built without {part} kernels"
