"""Folders of predictions compared with a dataset, in Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from swin_umamba.cli import app
from swin_umamba.data import open_dataset
from swin_umamba.errors import UserError
from swin_umamba.evaluate import (
    CaseScores,
    Scores,
    compare,
    evaluate_folder,
    open_truth,
    score_case,
    with_instances,
)

CASES = ("a", "b", "c")


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three images: two with a square each, one empty."""
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
    with pytest.raises(UserError, match="lacks predictions of b; --allow-missing"):
        evaluate_folder(perfect, dataset)
    assert [c.case for c in evaluate_folder(perfect, dataset, names="ac").cases] == ["a", "c"]
    some = evaluate_folder(perfect, dataset, allow_missing=True)
    assert [c.case for c in some.cases] == ["a", "c"]
    with pytest.raises(UserError, match=r"only one .* of b$"):
        compare(some, evaluate_folder(dataset / "masks", dataset))


def test_strangers_are_passed_over_on_request(dataset: Path, perfect: Path) -> None:
    _save(perfect / "zz.png", np.zeros((32, 32)))
    assert len(evaluate_folder(perfect, dataset, allow_extra=True).cases) == 3


def test_a_folder_of_masks_is_truth_enough(dataset: Path, perfect: Path, tmp_path: Path) -> None:
    off = _shifted(perfect, tmp_path / "off")
    found, expected = (evaluate_folder(off, truth) for truth in (dataset / "masks", dataset))
    assert found.to_json() == expected.to_json()
    _save(tmp_path / "other" / "a.png", np.full((32, 32), 7))
    truth = open_truth(tmp_path / "other", open_dataset(dataset))  # whose classes are 0 and 1
    with pytest.raises(UserError, match="holds the label 7"):
        evaluate_folder(off, truth, allow_extra=True)


def test_objects_are_matched_with_maps_of_another_folder(
    dataset: Path, perfect: Path, tmp_path: Path
) -> None:
    for name in CASES:
        _save(tmp_path / "maps" / f"{name}.png", 9 * np.array(Image.open(perfect / f"{name}.png")))
    scores = evaluate_folder(perfect, with_instances(open_dataset(dataset), tmp_path / "maps"))
    assert scores.means("f1") == [("objects", 1.0, 2)]
    assert (scores.objects().tp, scores.objects().fn) == (2, 0)
    (tmp_path / "maps" / "b.png").unlink()
    truth = with_instances(open_dataset(dataset), tmp_path / "maps")
    with pytest.raises(UserError, match="b has no map of instances"):
        evaluate_folder(perfect, truth, instances=True)


def test_what_is_ignored_counts_in_no_score() -> None:
    target = np.zeros((1, 20, 20), np.int64)
    target[0, 5:10, 5:10] = 1
    pred = target.copy()
    pred[0, :, 14:] = 2
    target[0, :, 14:] = -1
    scores = score_case("a", pred, target, 3, tolerance=1, spacing=(1, 1, 1), instances=pred)
    assert scores.dsc[0] == scores.nsd[0] == scores.dsc_merged[0] == scores.instances.f1 == 1
    assert np.isnan(scores.dsc[1])


def test_both_conventions_on_request_and_classes_merged() -> None:
    golden = np.load(Path(__file__).parents[1] / "fixtures" / "metrics.npz")
    pred, target = (golden[f"{n}_semantic"][None].astype(int) for n in ("pred", "gt"))
    case = score_case("a", pred, target, 4, tolerance=2, spacing=(1, 1, 1), release_nsd=True)
    scores = Scores(("x", "y", "z"), 2, (case,))
    assert scores.metrics() == ("dsc", "dsc_merged", "nsd", "nsd_release")
    np.testing.assert_allclose(scores.values("nsd")[0], golden["nsd_tol2"], atol=1e-5)
    release = scores.values("nsd_release")[0]
    np.testing.assert_allclose(release, golden["nsd_tol2_release"], atol=1e-5)
    inside = 2 * ((pred > 0) & (target > 0)).sum() / ((pred > 0).sum() + (target > 0).sum())
    assert scores.means("dsc_merged") == [("all merged", pytest.approx(inside), 1)]
    with pytest.raises(ValueError, match="release_nsd: for 2-D images only"):
        score_case(
            "v", np.repeat(pred, 2, 0), np.repeat(target, 2, 0), 4, tolerance=2,
            spacing=(1, 1, 1), release_nsd=True,
        )  # fmt: skip


def test_an_unwritable_file_is_an_error_with_its_name(
    dataset: Path, perfect: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(
        app, ["evaluate", str(perfect), str(dataset), "--json", str(tmp_path / "file" / "s.json")]
    )
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.output.replace("\n", "")


def _scores(values: np.ndarray) -> Scores:
    cases = (CaseScores(str(i), (v,), (np.nan,)) for i, v in enumerate(values))
    return Scores(("one",), 2, tuple(cases))


def test_the_interval_is_that_of_normal_theory_where_cases_are_many() -> None:
    rng = np.random.default_rng(3)
    delta = rng.normal(0.02, 0.1, 900)
    (found,) = compare(_scores(0.5 + delta), _scores(np.full(900, 0.5)))
    half = 1.96 * delta.std() / 30
    assert found.mean == pytest.approx(delta.mean())
    assert (found.low, found.high) == pytest.approx(
        (delta.mean() - half, delta.mean() + half), abs=0.1 * half
    )


def test_cases_that_one_side_does_not_define_are_left_out() -> None:
    first, second = np.array([0.5, np.nan, 0.7]), np.array([0.4, 0.4, np.nan])
    (found,) = compare(_scores(first), _scores(second))
    assert (found.cases, found.mean, found.low, found.high) == pytest.approx((1, 0.1, 0.1, 0.1))


def test_the_interval_covers_a_known_difference() -> None:
    rng = np.random.default_rng(1)
    first = rng.uniform(0.6, 0.9, 60)
    second = first - 0.05 + rng.normal(0, 0.01, 60)

    (found,) = compare(_scores(first), _scores(second))
    assert found.low < 0.05 < found.high
    assert found.clear
    assert compare(_scores(first), _scores(first))[0].clear is False
    assert found == compare(_scores(first), _scores(second))[0]
