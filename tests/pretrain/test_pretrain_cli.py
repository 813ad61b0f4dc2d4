"""`swin-umamba pretrain` on tiny images: its output, files, refusals, and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from pretrain_helpers import coloured_tiles, write_archive
from run_helpers import assert_same_weights
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.errors import UserError
from swin_umamba.pretrain import PretrainConfig
from swin_umamba.report import write_report
from swin_umamba.runs import Run

TINY = '{"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1], "d_state": 1}'
SHORT = (
    *("--set", f"model_options={TINY}", "--image-size", "16", "16", "--device", "cpu"),
    *("--batch-size", "8", "--set", "held_out=0.25"),
)


def _pretrain(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["pretrain", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "colours", coloured_tiles())


def test_a_run_from_the_command_line(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = _pretrain(images, run, *SHORT, "--iterations", "3")
    assert done.exit_code == 0, done.output
    assert "swin_umamba_d: 18 training images, 6 held out, 16x16 with 3 channels" in done.output
    assert "batches of 8, 3 classes" in done.output
    assert "images/s" in done.output
    assert "accuracy" in done.output
    assert f"Encoder: {run / 'encoder.safetensors'}" in done.output
    left = {path.name for path in run.iterdir()} - {".lock"}
    assert left == {
        *("pretraining.json", "environment.json", "images.json", "log.jsonl", "state.pt"),
        *("model.safetensors", "encoder.safetensors", "curves.png", "report.html"),
    }
    config = PretrainConfig.load(run / "pretraining.json")
    assert (config.image_size, config.iterations) == ((16, 16), 3)
    assert json.loads((run / "images.json").read_text())["classes"] == ["0", "1", "2"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Accuracy" in page
    assert "on held-out images" in page
    assert "http" not in page.replace("http-equiv", "")


def test_images_alone(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = _pretrain(images, run, *SHORT, "--labels", "none", "--iterations", "2")
    assert done.exit_code == 0, done.output
    assert "masked pixels" in done.output
    assert "on held-out images" in done.output
    assert PretrainConfig.load(run / "pretraining.json").task == "pixels"
    assert "masked pixels" in (run / "report.html").read_text(encoding="utf-8")


def test_a_longer_run_goes_on(images: Path, tmp_path: Path) -> None:
    options = (*SHORT, "--set", "decay_iterations=4", "--set", "warmup=0")
    for iterations in ("2", "4"):
        words = ("--iterations", iterations, "--resume")
        assert _pretrain(images, tmp_path / "run", *options, *words).exit_code == 0
    assert _pretrain(images, tmp_path / "whole", *options, "--iterations", "4").exit_code == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    other = write_archive(tmp_path / "other", coloured_tiles(seed=1))
    done = _pretrain(other, tmp_path / "run", "--iterations", "6", "--resume")
    assert done.exit_code == 1
    assert "cannot resume: other is not what" in done.stderr


def test_other_settings_are_refused_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of another size were decoded again first, which may take minutes."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, tile in enumerate(coloured_tiles().pixels[:4]):
        Image.fromarray(tile.transpose(1, 2, 0)).save(folder / f"{number}.png")
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    short = ("--labels", "none", *SHORT, "--batch-size", "2", "--iterations", "1")
    assert _pretrain(folder, tmp_path / "run", *short).exit_code == 0
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "new"))
    for words, message in (
        (("--lr", "1e-2"), "lr is 0.001, not 0.01"),
        (("--image-size", "32", "32"), "image_size is (16, 16), not (32, 32)"),
        (("--labels", "folder"), "task is 'pixels', not 'classes'"),
    ):
        done = _pretrain(folder, tmp_path / "run", "--resume", *words)
        assert done.exit_code == 1
        assert message in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--labels", "folders"), "--labels: got 'folders', expected folder or none"),
        (("--set", "mask_share=2"), "mask_share: got 2, expected between 0 and 1"),
        (("--set", "masks=2"), "unknown fields masks; did you mean task?"),
        (("--model", "unet"), "model: got 'unet', expected one of"),
        (("--set", "model_options.dims=[4]"), "cannot build the model"),
        (("--device", "cuda:99"), "cannot be used"),
        (("--in-channels", "2"), "in_channels: got 2, the tiles have 3"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    images: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = _pretrain(images, tmp_path / "run", *SHORT, *words)
    assert done.exit_code == 1
    assert told in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    done = _pretrain(images, tmp_path / "run", *SHORT)
    assert done.exit_code == 1
    assert "already holds files" in done.stderr
    assert _pretrain(images, tmp_path / "a", *SHORT, "--iterations", "1").exit_code == 0
    done = _pretrain(images, tmp_path / "a", *SHORT, "--iterations", "1")
    assert "already holds files of a run" in done.stderr


def test_a_pretraining_is_no_training_run(images: Path, tmp_path: Path) -> None:
    assert _pretrain(images, tmp_path / "run", *SHORT, "--iterations", "1").exit_code == 0
    with pytest.raises(UserError, match=r"is not a training run: it holds no config\.json"):
        Run.open(tmp_path / "run")
    page = write_report(tmp_path / "run", tmp_path / "page.html")
    assert page.is_file()
    (tmp_path / "run" / "images.json").write_text("[]")
    with pytest.raises(UserError, match=r"images\.json"):
        write_report(tmp_path / "run")
