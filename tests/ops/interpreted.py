"""A test file run once more with Triton's interpreter, which reads its variable when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SHARE = "SWIN_UMAMBA_TESTS_SHARE"  # "1/4": the second, sixth, tenth, ... test


def run_interpreted(file: str, part: int, parts: int) -> None:
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
