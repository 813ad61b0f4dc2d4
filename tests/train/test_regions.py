"""Region-based labels from dataset to masks: sigmoid outputs, scored by region."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_nnunet, write_pixels
from PIL import Image
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.runs.run import Run
from swin_umamba.weights import read_config

TINY = '{"dims": [8, 16], "depths": [1, 1], "decoder_depths": [1], "drop_path_rate": 0}'
SHORT = (
    *("--set", f"model_options={TINY}", "--set", "augment=false", "--lr", "0.01"),
    *("--device", "cpu", "--iterations", "60", "--patch-size", "32", "32"),
    *("--validate-every", "60"),
)


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Boxes of class 1 around boxes of class 2, of another gray; some ignored."""
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    folder = write_nnunet(
        tmp_path / "cores", cases=4, shape=(32, 32), labels=labels, regions_class_order=[1, 2]
    )
    for i in range(4):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + i : 22 + i, 4:24] = 1
        mask[8 + i : 16 + i, 8 : 18 - i] = 2
        image = 20 + 80 * mask + np.random.default_rng(i).integers(0, 20, mask.shape, np.uint8)
        mask[:, 30:] = 3
        write_pixels(folder / "imagesTr" / f"case_{i}_0000.png", image)
        write_pixels(folder / "labelsTr" / f"case_{i}.png", mask)
    return folder


def test_regions_train_predict_and_score(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = _run("train", dataset, run, *SHORT)
    assert result.exit_code == 0, result.output
    opened = Run.open(run)
    assert read_config(opened.weights())["out_channels"] == 2
    (scores,) = [r["dsc_of_classes"] for r in opened.log() if "dsc" in r]
    assert len(scores) == 2  # a whole and a core; with classes these would be two, too
    assert min(scores) > 0.8, scores
    result = _run("predict", run, dataset / "imagesTr", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert set(np.unique(np.array(Image.open(tmp_path / "masks" / "case_0.png")))) == {0, 1, 2}
    result = _run(
        *("evaluate", tmp_path / "masks", dataset, "--run", run, "--allow-extra"),
        *("--json", tmp_path / "scores.json"),
    )
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "scores.json").read_text())
    assert facts["classes"] == ["whole", "core"]
    evaluated = [facts["means"]["dsc"][name]["mean"] for name in facts["classes"]]
    assert evaluated == pytest.approx(scores)  # one grid, and the same definition
    assert facts["means_of_classes"]["dsc"] == pytest.approx(opened.log()[-1]["dsc"])
