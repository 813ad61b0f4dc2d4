"""A test file run once more with Triton's interpreter, which reads its variable when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

_SHARE = "SWIN_UMAMBA_TESTS_SHARE"  # "1/4": the second, sixth, tenth, ... test


def run_interpreted(file: str, part: int = 0, parts: int = 1) -> None:
    """Run one of `parts` equal shares of a file's tests, numbered from 0, in a process of its own.

    Shares let the workers of pytest-xdist interpret side by side.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file],
        env={**os.environ, "TRITON_INTERPRET": "1", _SHARE: f"{part}/{parts}"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def shared_out(items: list[object]) -> list[object]:
    """The share of the collected tests that this process is to run: all, where it has none."""
    part, parts = map(int, os.environ.get(_SHARE, "0/1").split("/"))
    return items[part::parts]


def spare_the_interpreter() -> None:
    """Leave out what takes most of Triton's interpreter's time and finds nothing here.

    A launch replaces Triton's language by NumPy, and each call of a function in a kernel does so
    again, with the same outcome. Sums and products of integers are checked for overflow, which
    tensors of a few thousand values are too small for.
    """
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[int] = set()

    def patched_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module in patched:
            return None
        patched.add(module)
        return patch(function)

    def launched(self: Any, *args: Any, **options: Any) -> None:
        patched.clear()
        launch(self, *args, **options)

    interpreter._patch_lang = patched_once
    interpreter.GridExecutor.__call__ = launched
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
