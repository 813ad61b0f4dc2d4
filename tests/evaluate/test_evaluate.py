"""Folders of predictions against a dataset, in Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.data import open_dataset
from swin_umamba.errors import UserError
from swin_umamba.evaluate import CaseScores, Scores, compare, evaluate_folder

CASES = ("a", "b", "c")


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three pictures: two with a square each, one empty."""
    root = tmp_path / "set"
    for i, name in enumerate(CASES):
        _save(root / "images" / f"{name}.png", np.full((32, 32), 10 * i + 5))
        mask = np.zeros((32, 32))
        if name != "c":
            mask[8:16, 8 + i : 16 + i] = 1
        _save(root / "masks" / f"{name}.png", mask)
    return root


@pytest.fixture
def perfect(dataset: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "perfect"
    for name in CASES:
        _save(folder / f"{name}.png", np.array(Image.open(dataset / "masks" / f"{name}.png")))
    return folder


def _shifted(perfect: Path, to: Path) -> Path:
    for file in perfect.iterdir():
        _save(to / file.name, np.roll(np.array(Image.open(file)), 4, axis=0))
    return to


def test_perfect_predictions_score_one_and_empty_cases_are_counted(
    dataset: Path, perfect: Path
) -> None:
    scores = evaluate_folder(perfect, open_dataset(dataset))
    assert [c.case for c in scores.cases] == list(CASES)
    for metric in ("dsc", "nsd"):
        ((_, mean, count),) = scores.means(metric)
        assert (mean, count) == (1.0, 2)


def test_a_shift_is_measured(dataset: Path, perfect: Path, tmp_path: Path) -> None:
    scores = evaluate_folder(_shifted(perfect, tmp_path / "off"), open_dataset(dataset))
    assert scores.means("dsc")[0][1] == pytest.approx(0.5)
    assert scores.means("nsd")[0][1] < 1


def test_command_line_writes_tables_and_compares(
    dataset: Path, perfect: Path, tmp_path: Path
) -> None:
    off = _shifted(perfect, tmp_path / "off")
    result = CliRunner().invoke(
        app,
        [
            *("evaluate", str(perfect), str(dataset), "--against", str(off)),
            *("--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv")),
        ],
    )
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "s.json").read_text())
    assert next(iter(facts["means"]["dsc"].values())) == {"mean": 1.0, "cases": 2, "empty": 1}
    assert facts["against"][0]["mean"] == pytest.approx(0.5)
    assert facts["against"][0]["clear"]
    assert (tmp_path / "s.csv").read_text().startswith("case,class,metric,value\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "a.png").write_bytes(b"no image"), "a.png"),
        (lambda f: _save(f / "a.png", np.zeros((31, 32))), "a.png is 31x32"),
        (lambda f: _save(f / "a.png", np.full((32, 32), 9)), "holds the label 9"),
        (lambda f: _save(f / "zz.png", np.zeros((32, 32))), "no case of .*: zz"),
    ],
)
def test_bad_predictions_are_named(dataset, perfect, damage, message) -> None:
    damage(perfect)
    with pytest.raises(UserError, match=message):
        evaluate_folder(perfect, open_dataset(dataset))


def test_missing_predictions_are_named(dataset: Path, perfect: Path) -> None:
    (perfect / "b.png").unlink()
    with pytest.raises(UserError, match="lacks predictions of b"):
        evaluate_folder(perfect, open_dataset(dataset), names=CASES)


def test_an_unwritable_file_is_an_error_with_its_name(
    dataset: Path, perfect: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(
        app, ["evaluate", str(perfect), str(dataset), "--json", str(tmp_path / "file" / "s.json")]
    )
    assert result.exit_code == 1


def test_the_interval_covers_a_known_difference() -> None:
    rng = np.random.default_rng(1)
    first = rng.uniform(0.6, 0.9, 60)
    second = first - 0.05 + rng.normal(0, 0.01, 60)

    def scores(values: np.ndarray) -> Scores:
        return Scores(
            ("one",), 2, "contour",
            tuple(CaseScores(str(i), (v,), (np.nan,)) for i, v in enumerate(values)),
        )  # fmt: skip

    (found,) = compare(scores(first), scores(second))
    assert found.low < 0.05 < found.high
    assert found.clear
    assert compare(scores(first), scores(first))[0].clear is False
    assert found == compare(scores(first), scores(second))[0]
