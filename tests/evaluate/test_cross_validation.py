"""Held-out cases, the table of folds, and the postprocessing determined on them."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.data import Split, open_dataset
from swin_umamba.data.datasets.splits import splits_json
from swin_umamba.errors import UserError
from swin_umamba.evaluate import CaseScores, Scores, evaluate_cases
from swin_umamba.evaluate.cross_validation import CrossValidation
from swin_umamba.evaluate.held_out import held_out
from swin_umamba.evaluate.postprocessing import find_postprocessing
from swin_umamba.inference.postprocessing import Postprocessing
from swin_umamba.inference.record import Manifest
from swin_umamba.runs import Run, TrainConfig
from swin_umamba.runs.folds import fold_folder

NAN = float("nan")


def _run(
    folder: Path, train: tuple[str, ...], val: tuple[str, ...], fold: str = "0", **config: str
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(TrainConfig(fold=fold).changed(config).to_json())
    (folder / "splits.json").write_text(splits_json([Split(train, val)]))
    return folder


def test_held_out_is_what_was_not_trained_on(tmp_path: Path) -> None:
    assert held_out(_run(tmp_path / "one", ("a", "b"), ("c",))) == ("c",)
    everything = _run(tmp_path / "all", ("a", "b"), ("a", "b"), "all")
    with pytest.raises(UserError, match=r"on all its cases \(fold all\): none is held out"):
        held_out(everything)
    _run(fold_folder(tmp_path / "folds", 0), ("a",), ("b",))
    with pytest.raises(UserError, match=r"several folds, .* name one of them, as .*fold_0"):
        held_out(tmp_path / "folds")
    with pytest.raises(UserError, match="it holds those of several folds; name one of them, as"):
        Run.open(tmp_path / "folds")
    with pytest.raises(UserError, match="is not a training run: it is missing"):
        held_out(tmp_path / "none")


def test_held_out_cases_that_an_earlier_run_was_trained_on_are_a_warning(tmp_path: Path) -> None:
    """Whether it was continued, directly or not, or its weights were named."""
    first = _run(tmp_path / "first", ("c", "d"), ("a",))
    between = _run(tmp_path / "between", ("b",), ("c",), continue_from=str(first))
    by_file = str(between / "best.safetensors")
    for options in ({"continue_from": str(between)}, {"pretrained": by_file}):
        run = _run(tmp_path / next(iter(options)), ("a", "b"), ("c", "e"), **options)
        with pytest.warns(UserWarning, match="1 of 2 validation cases .* .*first was trained on"):
            assert held_out(run) == ("c", "e")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held_out(_run(tmp_path / "fair", ("a", "b"), ("e",), continue_from=str(between)))
        held_out(_run(tmp_path / "imagenet", ("a",), ("c",), pretrained="vmamba.pth"))
    (first / "config.json").unlink()
    with pytest.warns(UserWarning, match="first, .* no longer there: it may have been trained on"):
        held_out(between)


def _scores(values: list[tuple[float, float]]) -> Scores:
    cases = (CaseScores(str(i), v, (NAN, NAN)) for i, v in enumerate(values))
    return Scores(("x", "y"), 2.0, tuple(cases))


def test_means_are_over_cases_and_over_folds() -> None:
    """Of which one fold has three cases and one has one, and a class is missing in one."""
    folds = {
        "fold_0": _scores([(0.2, 0.5), (0.4, NAN), (0.6, NAN)]),
        "fold_1": _scores([(0.8, NAN)]),
    }
    rows = {r.name: r for r in CrossValidation(folds, Postprocessing()).rows() if r.metric == "dsc"}
    x, y, mean = rows["x"], rows["y"], rows["mean"]
    assert x.folds == pytest.approx((0.4, 0.8))
    assert (x.over_cases, x.over_folds) == pytest.approx((0.5, 0.6))
    assert x.deviation == pytest.approx(np.std([0.4, 0.8], ddof=1))
    assert (y.over_cases, y.over_folds) == (0.5, 0.5)
    assert np.isnan(y.deviation)
    assert mean.folds == pytest.approx((0.45, 0.8))
    assert mean.over_cases == pytest.approx(0.5)
    facts = json.loads(json.dumps(CrossValidation(folds, Postprocessing()).to_json()))
    assert facts["rows"][1]["folds"] == [0.5, None]


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def specks(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """Masks of classes 1 and 2, and predictions: 1 with specks; 2, correctly, in two pieces."""
    labels = {"background": 0, "one": 1, "two": 2}
    root = tmp_path / "set"
    root.mkdir()
    facts = {"channel_names": {"0": "x"}, "labels": labels, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps({**facts, "numTraining": 2}))
    files = {}
    for name in ("a", "b"):
        mask = np.zeros((24, 24))
        mask[2:10, 2:10] = 1
        mask[14:18, 2:8] = mask[14:18, 14:18] = 2
        _save(root / "imagesTr" / f"{name}_0000.png", 9 * mask)
        _save(root / "labelsTr" / f"{name}.png", mask)
        mask[20:22, 20:22] = 1
        files[name] = tmp_path / "masks" / f"{name}.png"
        _save(files[name], mask)
    return root, files


def test_the_largest_component_is_kept_where_that_scores_better(
    specks: tuple[Path, dict[str, Path]],
) -> None:
    root, files = specks
    assert find_postprocessing(files, open_dataset(root)).keep_largest == (1,)
    for file in files.values():
        mask = np.array(Image.open(file))
        mask[20:22, 20:22] = 0
        _save(file, mask)
    assert find_postprocessing(files, open_dataset(root)).keep_largest == ()


def test_no_region_may_lose_by_it(specks: tuple[Path, dict[str, Path]]) -> None:
    """A speck of class 1 that is wrong as such, but right as a part of the region of 1 and 2."""
    root, files = specks
    facts = json.loads((root / "dataset.json").read_text())
    facts["labels"] = {"background": 0, "whole": [1, 2], "core": [1]}
    facts["regions_class_order"] = [2, 1]
    (root / "dataset.json").write_text(json.dumps(facts))
    assert find_postprocessing(files, open_dataset(root)).keep_largest == (1,)
    for file in files.values():
        truth = root / "labelsTr" / file.name
        mask = np.array(Image.open(truth))
        mask[20:22, 20:22] = 2
        _save(truth, mask)
    assert find_postprocessing(files, open_dataset(root)).keep_largest == ()


def test_evaluate_writes_what_it_finds_into_the_run_once(
    specks: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    root, files = specks
    run = _run(tmp_path / "run", ("b",), ("a",))
    (run / "best.safetensors").write_bytes(b"weights")
    Manifest(files["a"].parent, _made_by(b"weights")).note(files.values(), [])
    words = [files["a"].parent, root, "--run", run, "--allow-extra", "--find-postprocessing"]
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert result.exit_code == 0, result.output
    assert "1 case" in result.output
    assert "mean of the classes" in result.output
    assert "Keep the largest component only: one" in result.output
    found = json.loads((run / "postprocessing.json").read_text())
    weights = hashlib.sha256(b"weights").hexdigest()
    assert found == {"schema": 2, "keep_largest": [1], "weights": weights}
    again = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert again.exit_code == 1
    assert "already exists" in again.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("made_by", "what"),
    [
        (None, "by an unknown model"),
        (b"others", "by another model than the run's present best weights"),
        ({"models": [{"model": hashlib.sha256(b"weights").hexdigest()}]}, "by another model"),
        ({"keep largest": [1]}, "with postprocessing"),
    ],
)
def test_postprocessing_is_found_on_the_run_s_own_masks_only(
    specks: tuple[Path, dict[str, Path]],
    tmp_path: Path,
    made_by: bytes | dict[str, Any] | None,
    what: str,
) -> None:
    root, files = specks
    run = _run(tmp_path / "run", ("b",), ("a",))
    (run / "best.safetensors").write_bytes(b"weights")
    folder = files["a"].parent
    if isinstance(made_by, dict):
        facts = made_by if "models" in made_by else {**_made_by(b"weights"), **made_by}
    else:
        facts = _made_by(made_by or b"")
    # What made the mask of another case does not matter.
    Manifest(folder, _made_by(b"weights")).note([files["b"]], [])
    if made_by is not None:
        Manifest(folder, facts).note([files["a"]], [])
    words = [folder, root, "--run", run, "--allow-extra", "--find-postprocessing"]
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert result.exit_code == 1
    assert f"a.png was made {what}" in " ".join(result.stderr.split())
    assert "1 case" not in result.output  # before any mask is scored
    assert not (run / "postprocessing.json").exists()


def _made_by(weights: bytes) -> dict[str, Any]:
    return {"runtime": "torch", "model": hashlib.sha256(weights).hexdigest()}


def test_regions_are_scored_as_unions(specks: tuple[Path, dict[str, Path]]) -> None:
    root, files = specks
    facts = json.loads((root / "dataset.json").read_text())
    facts["labels"] = {"background": 0, "whole": [1, 2], "core": [1]}
    facts["regions_class_order"] = [2, 1]
    (root / "dataset.json").write_text(json.dumps(facts))
    scores = evaluate_cases(files, open_dataset(root))
    assert scores.classes == ("whole", "core")
    (whole, core) = scores.values("dsc")[0]
    assert whole == pytest.approx(2 * 104 / (104 + 108))
    assert core == pytest.approx(2 * 64 / (64 + 68))
    assert "dsc_merged" not in scores.metrics()
