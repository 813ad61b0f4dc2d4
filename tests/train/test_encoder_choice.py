"""Runs with an encoder of VMamba's second generation: trained, resumed, predicted, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import SECOND
from run_helpers import go, tiny_config
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.errors import UserError
from swin_umamba.inference import Predictor
from swin_umamba.models import create_encoder
from swin_umamba.report import write_report
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.presets import preset_config
from swin_umamba.train.network import build_model
from swin_umamba.weights import read_config

SIZES: dict[str, Any] = {"dims": (4, 8), "depths": (1, 1)}
OPTIONS: dict[str, Any] = {**SIZES, "decoder_depths": (1,)}


def config_of(**changes: Any) -> TrainConfig:
    return tiny_config(**{"encoder": SECOND, "model_options": OPTIONS, **changes})


def test_a_run_trains_resumes_predicts_and_is_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = create_encoder(SECOND, 1, **SIZES).state_dict()
    torch.save({"model": tensors}, tmp_path / "vmamba.pth")
    run = tmp_path / "run"
    config = config_of(iterations=3, pretrained=str(tmp_path / "vmamba.pth"), freeze_iterations=2)
    go(run, config)
    go(run, config.changed({"iterations": 4}), resume=True)
    assert json.loads((run / "config.json").read_text())["encoder"] == SECOND
    saved = read_config(run / "model.safetensors")
    assert (saved["name"], saved["encoder"]) == ("swin_umamba_d", SECOND)
    labels = Predictor.from_run(run)(np.zeros((1, 24, 31), np.float32))
    assert labels.shape == (24, 31)
    page = write_report(run)
    assert f"swin_umamba_d with {SECOND}" in page.read_text()


def test_every_residual_block_may_be_recomputed(tmp_path: Path) -> None:
    losses = []
    for again in (False, True):
        config = config_of(iterations=2, checkpoint_activations=again)
        records = go(tmp_path / str(again), config).records
        losses.append([record["loss"] for record in records if "loss" in record])
    assert losses[0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_runs_of_before_have_the_encoder_that_there_was() -> None:
    values = json.loads(TrainConfig().to_json())
    del values["encoder"]
    for schema in (2, 3):
        assert TrainConfig.from_values({**values, "schema": schema}).encoder is None
    network = build_model(tiny_config(), pretrained=False)
    assert "encoder" not in network.config
    assert hasattr(network.vssm_encoder.layers[0].blocks[0], "ln_1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "resnet"}, "encoder: got 'resnet', expected one of vmamba_tiny, "),
        ({"model": "swin_umamba_v1"}, "encoder: got .*with swin_umamba_v1"),
        ({"model": "dynunet"}, "encoder: got .*expected none with dynunet"),
        ({"model_options": {"encoder": "vmamba_tiny"}}, "expected one of the two"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"encoder": SECOND, **changes})


def test_weights_of_another_encoder_are_refused_by_name(tmp_path: Path) -> None:
    other = create_encoder("vmamba_v2_tiny_s2l5", 1, **SIZES).state_dict()
    torch.save({"model": other}, tmp_path / "w.pth")
    config = config_of(pretrained=str(tmp_path / "w.pth"))
    with pytest.raises(UserError, match=r"what would fit is .*encoder='vmamba_v2_tiny_s2l5'"):
        build_model(config, pretrained=True)


def test_presets_take_an_encoder() -> None:
    config = preset_config("microscopy", encoder=SECOND)
    assert (config.encoder, config.batch_size) == (SECOND, 12)


def test_summary_takes_an_encoder() -> None:
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["summary", *words, "--size", "64", "64"])

    said = run("swin_umamba_d", "--encoder", SECOND)
    assert said.exit_code == 0, said.output
    assert f"swin_umamba_d with {SECOND}" in said.output
    assert "35,691,512" in said.output
    for words in (("swin_umamba_v1", "--encoder", SECOND), ("dynunet", "--encoder", SECOND)):
        refused = run(*words)
        assert refused.exit_code == 1
        assert "encoder: got" in refused.output
