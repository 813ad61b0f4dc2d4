"""Fixtures of the pretraining tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_fixtures import interruptible, one_thread

__all__ = ["cache", "interruptible", "one_thread"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(folder))
    return folder
