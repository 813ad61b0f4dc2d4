"""The published trainings by name."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pages
import pytest
import typer
from data_helpers import write_nnunet, write_pixels
from train_helpers import discs
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.data import read_splits
from swin_umamba.loop.schedule import learning_rate
from swin_umamba.runs.folder import read_log
from swin_umamba.train import PRESETS, TrainConfig, preset_config

TINY = '{"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}'
SHORT = (
    *("--set", f"model_options={TINY}", "--device", "cpu"),
    *("--iterations", "2", "--batch-size", "1"),
)
SIZES = {  # as published: patch, batch, epochs until the release evaluates
    "abdomen_mri": ((320, 320), 30, 100),
    "endoscopy": ((384, 640), 13, 250),
    "microscopy": ((512, 512), 12, 350),
}


@pytest.mark.parametrize("name", SIZES)
def test_numbers_are_the_releases(name: str) -> None:
    config = preset_config(name)
    patch_size, batch_size, epochs = SIZES[name]
    assert (config.patch_size, config.batch_size) == (patch_size, batch_size)
    assert config.iterations == 250 * epochs
    assert (config.preset, config.fold) == (name, "all")
    assert (config.lr, config.weight_decay, config.eps) == (1e-4, 0.05, 1e-5)
    assert (config.betas, config.clip_norm, config.amp) == ((0.9, 0.999), 12.0, "fp16")


def test_no_preset_is_left_out_here() -> None:
    assert SIZES.keys() == PRESETS.keys()


def test_deep_supervision_is_off_for_the_dagger_from_scratch_alone() -> None:
    for model, pretrained, expected in (
        ("swin_umamba_d", None, False),
        ("swin_umamba_d", "encoder.pth", True),
        ("swin_umamba", None, True),
        ("swin_umamba", "encoder.pth", True),
        ("dynunet", None, True),
    ):
        config = preset_config("endoscopy", model=model, pretrained=pretrained)
        assert config.deep_supervision is expected
        assert config.pretrained == pretrained
        assert config.freeze_iterations == 2_500


@pytest.mark.parametrize("name", SIZES)
def test_the_rate_is_still_on_its_way_when_the_release_stops(name: str) -> None:
    config = preset_config(name)
    for done in (0.0, 0.3, 1.0):
        epoch = done * SIZES[name][2]
        cosine = (1 + math.cos(math.pi * epoch / 1000)) / 2
        assert learning_rate(config, done) == pytest.approx(1e-6 + (1e-4 - 1e-6) * cosine)
    longer = config.changed({"iterations": 2 * config.decay_iterations})
    assert learning_rate(longer, 0.75) == pytest.approx(1e-6)
    assert learning_rate(config.changed({"decay_iterations": None}), 1.0) == pytest.approx(1e-6)


def test_changes_override() -> None:
    config = preset_config("microscopy", fold="3", ema=0.999, lr=2e-4)
    assert (config.fold, config.ema, config.lr) == ("3", 0.999, 2e-4)
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="expected one of abdomen_mri, endoscopy, microscopy"):
        preset_config("abdomen_ct")
    with pytest.raises(ValueError, match="decay_iterations: got 0"):
        preset_config("microscopy", decay_iterations=0)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    folder = write_nnunet(
        tmp_path / "discs", cases=5, shape=(48, 48), labels={"background": 0, "disc": 1}
    )
    for i in range(5):
        image, mask = discs(48, seed=i)
        write_pixels(folder / "imagesTr" / f"case_{i}_0000.png", image.astype(np.uint8))
        write_pixels(folder / "labelsTr" / f"case_{i}.png", (mask > 0).astype(np.uint8))
    return folder


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *(str(word) for word in words)])


def test_a_run_records_preset_and_numbers(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("--preset", "abdomen_mri", "--set", "patch_size=[32, 64]", "--lr", "0.0002")
    result = _run(dataset, run, *settings, *SHORT)
    assert result.exit_code == 0, result.output
    found = json.loads((run / "config.json").read_text())
    assert (found["preset"], found["fold"], found["lr"]) == ("abdomen_mri", "all", 2e-4)
    assert (found["decay_iterations"], found["deep_supervision"]) == (250_000, False)
    assert (found["patch_size"], found["batch_size"], found["iterations"]) == ([32, 64], 1, 2)
    (split,) = read_splits(run / "splits.json")
    assert len(split.train) == len(split.val) == 5
    # The same command, as a scheduler repeats it.
    assert _run(dataset, run, *settings, *SHORT, "--resume").exit_code == 0
    assert len(read_log(run)) == 2
    result = _run(dataset, run, "--preset", "endoscopy", "--resume")
    assert "preset is 'abdomen_mri', not 'endoscopy'" in result.stderr.replace("\n", " ")


def test_patches_are_the_presets_unless_said(dataset: Path, tmp_path: Path) -> None:
    words = ("--preset", "abdomen_mri", *SHORT, "--fold", "4")
    assert _run(dataset, tmp_path / "a", *words, "--patch-size", "64", "32").exit_code == 0
    found = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (found["patch_size"], found["fold"]) == ([64, 32], "4")
    assert _run(dataset, tmp_path / "b", *words).exit_code == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["patch_size"] == [320, 320]


def test_unknown_names_are_told(dataset: Path, tmp_path: Path) -> None:
    for words in (("--preset", "abdomen_ct"), ("--set", "preset=abdomen_ct")):
        result = _run(dataset, tmp_path / "run", *words)
        assert result.exit_code == 1
        message = "preset: got 'abdomen_ct', expected one of abdomen_mri, endoscopy, microscopy"
        assert message in result.stderr.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def _shown_commands() -> list[str]:
    section = pages.text(pages.ROOT / "docs/reproducing.md").replace("\\\n", " ")
    return re.findall(r"swin-umamba (train [^`#\n]*--preset [^`#\n]*)", section)


@pytest.mark.parametrize("line", _shown_commands())
def test_commands_are_accepted_as_the_page_shows_them(line: str) -> None:
    verb, *words = line.split()
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = group.commands[verb].make_context(verb, words)
    preset_config(context.params["preset"], model=context.params["model"])


def test_the_page_lists_every_preset() -> None:
    text = pages.text(pages.ROOT / "docs/reproducing.md")
    for name, ((height, width), batch, epochs) in SIZES.items():
        start = f"| `{name}` | {height}x{width} | {batch} | {250 * epochs:,} ({epochs} epochs) |"
        assert start in text
