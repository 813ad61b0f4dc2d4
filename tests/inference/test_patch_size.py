"""Windows of another size than in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from predict_helpers import invoke

from swin_umamba.data.io.images import read_image
from swin_umamba.errors import UserError
from swin_umamba.inference import Predictor
from swin_umamba.runs import Run

Trained = tuple[Path, Path]


def test_windows_may_have_another_size(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    plain, small = Predictor.from_run(run), Predictor.from_run(run, patch_size=(8, 8))
    size = Run.open(run).config.patch_size
    assert plain.made_by["patch size"] == size != (8, 8)
    assert small.made_by["patch size"] == (8, 8)
    image = read_image(next((dataset / "images").iterdir()))
    full, part = plain.probabilities(image), small.probabilities(image)
    assert full.shape == part.shape
    assert not np.array_equal(full, part)
    result = invoke("predict", run, dataset / "images", tmp_path / "out", "--patch-size", "8", "8")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert any('"patch size": [8, 8]' in line for line in lines), json.dumps(lines[:1])
    again = invoke("predict", run, dataset / "images", tmp_path / "out")
    assert again.exit_code == 1
    assert "patch size" in again.stderr


def test_windows_without_pixels_are_refused(trained: Trained) -> None:
    with pytest.raises(UserError, match=r"patch_size: got \(0, 8\)"):
        Predictor.from_run(trained[1], patch_size=(0, 8))


@pytest.mark.slow  # exports
def test_exported_files_have_their_own_windows(exported: Path, tmp_path: Path) -> None:
    result = invoke("predict", exported, tmp_path, tmp_path / "out", "--patch-size", "8", "8")
    assert result.exit_code == 1
    assert "patch_size applies to runs" in result.stderr
