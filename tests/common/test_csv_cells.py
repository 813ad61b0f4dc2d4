"""Names of cases and classes in tables that spreadsheets open."""

from __future__ import annotations

import csv
import io

import pytest

from swin_umamba.common.csv_cells import cell
from swin_umamba.evaluate.scores import CaseScores, Scores


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=x", "\n=x", "\uff1d1"])
def test_no_cell_is_a_formula(name: str) -> None:
    assert cell(name) == f"'{name}"


@pytest.mark.parametrize("name", ["", "case-1", "a=b", "1", 'Ünit, "x"'])
def test_other_text_stays(name: str) -> None:
    assert cell(name) == name


def test_the_table_of_scores_holds_no_formula() -> None:
    scores = Scores(("=cmd|' /C calc'!A0",), 1.0, (CaseScores("@case", (0.5,), (0.25,)),))
    rows = list(csv.reader(io.StringIO(scores.to_csv())))
    assert rows[1] == ["'@case", "'=cmd|' /C calc'!A0", "dsc", "0.500000"]
