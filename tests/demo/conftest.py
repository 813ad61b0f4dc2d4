"""Fixtures of the demo's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from run_fixtures import one_thread
from train_helpers import discs

__all__ = ["one_thread", "pair_files"]


@pytest.fixture
def pair_files(tmp_path: Path) -> tuple[Path, Path]:
    """An image and a mask of 96x96 pixels as TIFFs."""
    paths = tmp_path / "image.tif", tmp_path / "mask.tif"
    for path, pixels in zip(paths, discs(96, seed=0), strict=True):
        tifffile.imwrite(path, pixels)
    return paths
