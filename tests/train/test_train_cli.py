"""`swin-umamba train` from a dataset to a run that predicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_nnunet, write_pixels
from run_helpers import signalled_at
from train_helpers import discs
from typer.testing import CliRunner, Result

from swin_umamba import Predictor
from swin_umamba.cli import app
from swin_umamba.cli.training_bar import TrainingBar
from swin_umamba.data import read_labels, read_splits
from swin_umamba.data.prepare.plan import Plan
from swin_umamba.models import create_model
from swin_umamba.runs.folder import read_log
from swin_umamba.weights import save_weights

SHORT = (
    *("--set", 'model_options={"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}'),
    *("--device", "cpu", "--iterations", "4", "--patch-size", "32", "32"),
    *("--validate-every", "2", "--lr", "0.003"),
)
RUN_FILES = {
    *("config.json", "plan.json", "splits.json", "log.jsonl", "curves.png"),
    *("model.safetensors", "best.safetensors", "state.pt", ".lock"),
    *("environment.json", "overlays"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three images with discs, some of whose pixels are to be ignored."""
    labels = {"background": 0, "disc": 1, "ignore": 2}
    folder = write_nnunet(tmp_path / "discs", cases=3, shape=(48, 48), labels=labels)
    for i in range(3):
        image, mask = discs(48, seed=i)
        mask = (mask > 0).astype(np.uint8)
        mask[:, :6] = 2
        write_pixels(folder / "imagesTr" / f"case_{i}_0000.png", image.astype(np.uint8))
        write_pixels(folder / "labelsTr" / f"case_{i}.png", mask)
    return folder


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *(str(word) for word in words)])


def _error(*words: str | Path) -> str:
    result = _run(*words)
    assert result.exit_code == 1, result.output
    (line,) = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
    return line


def test_from_a_dataset_to_a_prediction(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = _run(dataset, run, *SHORT, "--set", "ema=0.5", "--fold", "1")
    assert result.exit_code == 0, result.output
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert "2 training cases, 1 for validation" in result.output
    assert "best DSC" in result.output
    assert "waiting for data" in result.output
    config = json.loads((run / "config.json").read_text())
    assert (config["fold"], config["ema"], config["iterations"]) == ("1", 0.5, 4)
    (split,) = read_splits(run / "splits.json")
    assert (len(split.train), len(split.val)) == (2, 1)
    assert Plan.load(run / "plan.json").ignore_label == 2
    image, _ = discs(40, seed=9)
    labels = Predictor.from_run(run, device="cpu")(image[None])
    assert labels.shape == (40, 40)


@pytest.mark.slow
def test_stopping_and_going_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert _run(dataset, tmp_path / "whole", *SHORT).exit_code == 0
    monkeypatch.setattr(
        TrainingBar, "__call__", lambda self, progress: signalled_at(2, 2)(progress)
    )
    # --resume starts a run where there is none, so that a scheduler needs one command.
    result = _run(dataset, run, *SHORT, "--resume")
    assert result.exit_code == 130, result.output
    assert f"swin-umamba train {dataset} {run} --resume" in result.output.replace("\n", "")
    assert len(read_log(run)) == 2
    assert "lr is 0.003, not 0.5" in _error(dataset, run, "--resume", "--lr", "0.5")
    assert "--axis is fixed by the run" in _error(dataset, run, "--resume", "--axis", "0")
    assert len(read_log(run)) == 2
    monkeypatch.undo()
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    result = _run(dataset, run, "--resume", "--workers", "1")
    assert result.exit_code == 0, result.output
    losses = [[r["loss"] for r in read_log(f)] for f in (run, tmp_path / "whole")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_what_cannot_be_is_told_in_one_line(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tmp_path / "config.json"
    config.write_text('{"learning_rate": 1}')
    for words, message in (
        (("--config", config), "unknown fields learning_rate"),
        (("--config", tmp_path / "none.json"), "none.json cannot be read"),
        (("--set", "lr"), "--set: got 'lr', expected NAME=VALUE"),
        (("--set", "eps=-1"), "eps: got -1, expected above 0"),
        (("--set", "model_options.width=1"), "model_options: got width"),
        (("--model", "unet"), "got 'unet', expected one of swin_umamba"),
        (("--pretrained", tmp_path / "none.pth"), "none.pth"),
        (("--device", "nonsense"), "device 'nonsense'"),
        (("--set", "num_classes=5"), "--set: num_classes is determined by the dataset"),
        (("--set", "fold=1", "--folds", "0"), "--fold trains one run, --folds one per fold"),
    ):
        assert message in _error(dataset, run, *SHORT, *words)
    # Before the dataset is prepared, which may take hours.
    assert not (tmp_path / "cache").exists()
    assert "fold: got '7'" in _error(dataset, run, *SHORT, "--fold", "7")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    assert "already holds files" in _error(dataset, tmp_path / "taken", *SHORT)
    assert "no folder at" in _error(tmp_path / "nowhere", run, *SHORT)
    assert not list((tmp_path / "taken").glob("*.json"))
    assert not run.exists()


def test_an_encoder_that_stays_frozen_is_said(dataset: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    model = {"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1], "in_channels": 1}
    save_weights(create_model("swin_umamba_d", out_channels=2, **model), weights)
    options = (*SHORT, "--pretrained", weights, "--validate-every", "4")
    # The length is known at the start, or when a run that does not improve ends.
    endless = ("--iterations", "3000", "--patience", "1", "--lr", "1e-9", "--set", "min_lr=0")
    for name, words in (("short", ()), ("ended", endless)):
        said = _run(dataset, tmp_path / name, *options, *words)
        assert said.exit_code == 0, said.output
        count = len(read_log(tmp_path / name))
        line = f"frozen for 2,500 iterations, and the run has {count}: --set freeze_iterations=0"
        assert said.stderr.replace("\n", " ").count(line) == 1, said.stderr
    said = _run(dataset, tmp_path / "trained", *options, "--set", "freeze_iterations=3")
    assert "frozen" not in said.output


def test_patches_are_as_any_setting_says(dataset: Path, tmp_path: Path) -> None:
    """By its option, by --set or by the config of another run; by the images otherwise."""
    short = (*SHORT[: SHORT.index("--iterations")], "--iterations", "1")
    config = tmp_path / "first" / "config.json"
    for name, words, size in (
        ("first", ("--set", "patch_size=[48, 32]"), [48, 32]),
        ("second", ("--config", config), [48, 32]),
        ("third", (), [64, 64]),
    ):
        assert _run(dataset, tmp_path / name, *short, *words).exit_code == 0
        for file in ("config.json", "plan.json"):
            assert json.loads((tmp_path / name / file).read_text())["patch_size"] == size
    words = ("--resume", "--patch-size", "32", "32")
    assert "patch_size is (48, 32), not (32, 32)" in _error(dataset, tmp_path / "first", *words)
    resumed = _run(dataset, tmp_path / "first", "--resume", "--config", config)
    assert resumed.exit_code == 0, resumed.output


def test_another_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    assert _run(dataset, tmp_path / "run", *SHORT).exit_code == 0
    other = dataset.rename(tmp_path / "others")
    assert "was trained on discs, not on others" in _error(other, tmp_path / "run", "--resume")


@pytest.mark.parametrize("fold", ["0", "all"])
def test_regions_and_ignored_pixels_go_all_the_way(tmp_path: Path, fold: str) -> None:
    """From a dataset of nested regions to a mask of the files' own numbers, and its scores."""
    labels = {"background": 0, "whole": [3, 7], "core": 7, "ignore": 9}
    folder = write_nnunet(
        tmp_path / "nested", cases=3, shape=(48, 48), labels=labels, regions_class_order=[3, 7]
    )
    for i in range(3):
        image, mask = discs(48, seed=i)
        numbers = np.where(mask > 0, np.where(np.indices(mask.shape)[0] > 24, 7, 3), 0)
        numbers[:, :3] = 9
        write_pixels(folder / "imagesTr" / f"case_{i}_0000.png", image.astype(np.uint8))
        write_pixels(folder / "labelsTr" / f"case_{i}.png", numbers.astype(np.uint8))
    run, masks = tmp_path / "run", tmp_path / "masks"
    result = _run(folder, run, *SHORT, "--fold", fold)
    assert result.exit_code == 0, result.output
    plan = Plan.load(run / "plan.json")
    assert (plan.num_outputs, plan.activation) == (2, "sigmoid")
    predict = ["predict", str(run), str(folder / "imagesTr"), str(masks), "--save-probabilities"]
    done = CliRunner().invoke(app, predict)
    assert done.exit_code == 0, done.output
    for path in masks.glob("*.png"):
        with np.load(path.with_suffix(".npz")) as file:
            decided = plan.decide(file["probabilities"])
        numbers = np.array(plan.values)[decided]
        np.testing.assert_array_equal(read_labels(path).labels, numbers)
    done = CliRunner().invoke(app, ["evaluate", str(masks), str(folder)])
    assert done.exit_code == 0, done.output
    assert "whole" in done.stdout
    assert "core" in done.stdout
