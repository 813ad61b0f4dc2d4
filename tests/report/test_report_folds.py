"""The page of a cross-validation, with links to the pages of its folds."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from made_once import made_once
from predict_helpers import invoke
from squares import train_on_squares

from swin_umamba.errors import UserError
from swin_umamba.report import write_report

ROWS = [
    {
        "metric": "dsc",
        "class": "<b>&",
        "folds": [0.5, None],
        "mean_over_cases": 0.5,
        "mean_over_folds": 0.5,
        "sd_over_folds": None,
    }
]


@pytest.fixture
def parent(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = made_once(tmp_path_factory, "squares", train_on_squares) / "run"
    for name in ("fold_0", "fold_1"):
        shutil.copytree(run, tmp_path / "parent" / name)
    return tmp_path / "parent"


def _with_table(parent: Path, **changes: object) -> None:
    content = {"schema": 1, "folds": ["fold_0", "fold_1"], "rows": ROWS, **changes}
    (parent / "cross_validation.json").write_text(json.dumps(content))


def test_the_table_and_a_page_for_each_fold(parent: Path) -> None:
    _with_table(parent)
    result = invoke("report", parent, "--device", "cpu")
    assert result.exit_code == 0, result.output
    page = (parent / "report.html").read_text()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "0.500" in page
    assert "n/a" in page
    links = re.findall(r'<a href="([^"]+)">', page)
    assert links == ["fold_0/report.html", "fold_1/report.html"]
    assert all((parent / link).is_file() for link in links)


def test_folds_without_a_table(parent: Path) -> None:
    page = write_report(parent, parent.parent / "page.html", device="cpu").read_text()
    assert "no table of scores yet" in page
    assert 'href="parent/fold_1/report.html"' in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"rows": 1}, {"folds": ["fold_0"]}, {"rows": [{**ROWS[0], "folds": ["x", None]}]}]
)
def test_a_damaged_table_is_told(parent: Path, changes: dict[str, object]) -> None:
    _with_table(parent, **changes)
    with pytest.raises(UserError, match=r"cross_validation\.json is not a cross-validation"):
        write_report(parent, device="cpu")


def test_masks_are_of_one_run(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"predictions: .* holds folds"):
        write_report(parent, predictions=tmp_path)
