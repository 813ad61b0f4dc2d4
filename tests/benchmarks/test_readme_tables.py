"""The tables of README.md, docs and benchmarks/results match the results files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.render import readme

ROOT = Path(__file__).parents[2]


def test_tables_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["readme", "--check"]) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_other_figures_are_found_and_mended(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "benchmarks/results", tmp_path / "benchmarks/results")
    (tmp_path / "docs").mkdir()
    documents = {page: (ROOT / page).read_text() for page in readme.PAGES}
    for page, document in documents.items():
        (tmp_path / page).write_text(document.replace("| +0.0", "| +0.1"))
    made = tmp_path / "benchmarks/results/ops_h100.md"
    made.write_text(made.read_text() + "faster still\n")
    assert readme.stale(tmp_path) == [made, *(tmp_path / page for page in documents)]

    written = readme.remake(tmp_path)
    assert readme.stale(tmp_path) == []
    for page, document in documents.items():
        assert (tmp_path / page).read_text() == document
    assert tmp_path / "benchmarks/results/ops_h100_float16.png" in written


def test_a_document_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="table: scans"):
        readme.with_table("# Title\n", "scans", "| a |")
