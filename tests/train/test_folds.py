"""`train --folds`: a run per fold, the table of all, and prediction with all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_nnunet
from run_helpers import signalled_at
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.cli.train import _joined
from swin_umamba.cli.training_bar import TrainingBar
from swin_umamba.common.files import sha256
from swin_umamba.evaluate.held_out import held_out
from swin_umamba.runs.folds import folds_of
from swin_umamba.runs.run import Run

SHORT = (
    *("--set", 'model_options={"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}'),
    *("--device", "cpu", "--iterations", "2", "--patch-size", "32", "32"),
)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    return write_nnunet(tmp_path / "boxes", cases=4, shape=(32, 40))


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a b --folds 0 1 2", "a b --folds 0,1,2"),
        ("--folds 0 1 a b --lr 1", "--folds 0,1 a b --lr 1"),
        ("a b --folds 0,1 3 --resume", "a b --folds 0,1,3 --resume"),
        ("a --folds=0,2 b", "a --folds=0,2 b"),
        ("a b --folds --lr 1", "a b --folds --lr 1"),
    ],
)
def test_numbers_after_the_option_are_one_value(words: str, expected: str) -> None:
    assert _joined(words.split()) == expected.split()


@pytest.mark.slow
def test_a_run_for_each_fold_then_their_table_and_prediction_by_all(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingBar, "__call__", lambda self, p: signalled_at(1, 2)(p))
        stopped = _run("train", dataset, runs, *SHORT, "--folds", 0, 2, 3)
    assert stopped.exit_code == 130, stopped.output
    hint = f"swin-umamba train {dataset} {runs} --folds 0 2 3 --resume"
    assert hint in stopped.output.replace("\n", "")
    assert [path.name for path in folds_of(runs)] == ["fold_0"]
    # Folds still to be trained get the settings of the one already begun.
    result = _run("train", dataset, runs, "--folds", 0, 2, 3, "--resume")
    assert result.exit_code == 0, result.output
    assert [path.name for path in folds_of(runs)] == ["fold_0", "fold_2", "fold_3"]
    opened = [Run.open(path) for path in folds_of(runs)]
    assert [(run.config.fold, run.config.patch_size) for run in opened] == [
        ("0", (32, 32)),
        ("2", (32, 32)),
        ("3", (32, 32)),
    ]
    assert all(len(run.log()) == 2 for run in opened)
    facts = json.loads((runs / "cross_validation.json").read_text())
    assert facts["folds"] == ["fold_0", "fold_2", "fold_3"]
    (row,) = [row for row in facts["rows"] if row["metric"] == "dsc"]
    assert row["class"] == "blob"
    assert row["mean_over_folds"] == pytest.approx(np.mean(row["folds"]))
    cases = [case["case"] for scores in facts["scores"].values() for case in scores["cases"]]
    assert cases == [name for path in folds_of(runs) for name in held_out(path)]
    assert "Cross-validation, 3 held-out cases" in result.output
    keeps = [run.postprocessing for run in opened]
    for run, kept in zip(opened, keeps, strict=True):
        weights = sha256(run.weights())
        assert kept == {"schema": 2, "keep_largest": facts["keep_largest"], "weights": weights}
    result = _run("predict", runs, dataset / "imagesTr", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "masks").glob("*.png"))) == 4


def test_what_cannot_be_is_told_before_anything_is_trained(dataset: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for words, message in (
        (("--folds", "0", "7"), "fold: got '7'"),
        (("--folds", "1", "1"), "expected each fold once"),
        (("--folds", "x"), "--folds: got 'x', expected numbers"),
        (("--folds", "0", "--fold", "1"), "--fold trains one run"),
        (("--folds", "0", "--model", "unet"), "model: got 'unet'"),
    ):
        result = _run("train", dataset, runs, *SHORT, *words)
        assert result.exit_code == 1, result.output
        assert message in result.stderr.replace("\n", " ")
        assert not runs.exists()
    runs.mkdir()
    (runs / "mine.txt").touch()
    result = _run("train", dataset, runs, *SHORT, "--folds", "0")
    assert "already holds files (mine.txt)" in result.stderr.replace("\n", "")
