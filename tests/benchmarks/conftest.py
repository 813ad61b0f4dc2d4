"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import warm


@pytest.fixture(scope="module")
def warm_processes() -> Iterator[None]:
    """What the benchmarks start is forked from a process that has imported PyTorch already."""
    with pytest.MonkeyPatch.context() as patch:
        if warm.AVAILABLE:
            patch.setattr(subprocess, "run", warm.run)
        yield
