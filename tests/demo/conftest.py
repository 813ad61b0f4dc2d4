"""What the demo's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile
import torch
from train_helpers import discs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pair_files(tmp_path: Path) -> tuple[Path, Path]:
    """An image and a mask of 96x96 pixels as TIFFs."""
    paths = tmp_path / "image.tif", tmp_path / "mask.tif"
    for path, pixels in zip(paths, discs(96, seed=0), strict=True):
        tifffile.imwrite(path, pixels)
    return paths
