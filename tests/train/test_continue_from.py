"""`train --continue-from`: another run's model and weights, with other classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_helpers import write_nnunet
from safetensors.torch import load_file
from typer.testing import CliRunner

from swin_umamba.cli import app

SMALL = '{"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}'


def _train(dataset: Path, run: Path, *words: object) -> str:
    short = ("--device", "cpu", "--iterations", 1, "--patch-size", 32, 32, *words)
    result = CliRunner().invoke(app, ["train", str(dataset), str(run), *map(str, short)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.slow
def test_classes_that_differ_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    first = tmp_path / "first"
    _train(
        write_nnunet(tmp_path / "blobs", shape=(32, 40)),
        first,
        *("--set", f"model_options={SMALL}", "--fold", 1),
    )
    said = {}
    for name, labels in (
        ("same", {"background": 0, "blob": 1}),
        ("renamed", {"background": 0, "lesion": 1}),
        ("more", {"background": 0, "blob": 1, "ignore": 3, "rim": 2}),
    ):
        data = write_nnunet(tmp_path / name, shape=(32, 40), labels=labels)
        said[name] = _train(data, tmp_path / f"run_{name}", "--continue-from", first)
        # Of the same names, in another fold.
        assert "validation cases have the names of cases" in said[name]
    assert "tensors loaded best DSC" in said["same"]
    assert "go on as" not in said["same"] + said["more"]
    assert "has the classes background, blob, which go on as background, lesion" in said["renamed"]
    assert "reinitialized (2 outputs there, 3 here): decoder.seg_layers.0.bias" in said["more"]
    config = json.loads((tmp_path / "run_more" / "config.json").read_text())
    assert config["model_options"] == json.loads(SMALL)
    source, weights = (
        load_file(path / "model.safetensors") for path in (first, tmp_path / "run_same")
    )
    for tensor in source:  # one step of at most lr from them
        assert (weights[tensor] - source[tensor]).abs().max() < 1e-3, tensor
