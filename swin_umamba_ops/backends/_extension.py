"""The compiled module `swin_umamba_ops._C`: whether it can be imported, and why not."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

# Left by the build in place of the module: one line with the reason why it is missing.
_NOTE = Path(__file__).parents[1] / "_not_compiled.txt"


@functools.cache
def load() -> tuple[ModuleType | None, str]:
    """The module, or None with the reason why it cannot be imported."""
    try:
        return importlib.import_module("swin_umamba_ops._C"), ""
    except ModuleNotFoundError:
        reason = _NOTE.read_text().strip() if _NOTE.is_file() else "it was never built"
        return None, f"swin_umamba_ops was installed without its compiled module: {reason}"
    except ImportError as error:
        return None, f"the compiled module does not load: {error}"


def module() -> ModuleType:
    """The compiled module. RuntimeError with the reason if it is missing."""
    found, reason = load()
    if found is None:
        raise RuntimeError(reason)
    return found


def part(name: str) -> Any:
    """A part of the compiled module ("cuda", "cpu"), or None if it is missing."""
    found, _ = load()
    return getattr(found, name, None)


def why_without(part: str) -> str:
    """Why the compiled module lacks a part ("cuda", "cpu"), as recorded by the build."""
    what = f"swin_umamba_ops was built without {part} kernels"
    reason = module().build_info()["left_out"].get(part)
    return what if reason is None else f"{what}: {reason}"
