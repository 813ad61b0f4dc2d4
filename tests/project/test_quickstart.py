"""The quickstart notebook runs without network, and is kept with its pictures."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")
notebooks = pytest.importorskip("notebooks", reason="needs the extra dev")

PICTURES = 3


def test_it_is_kept_with_its_outputs() -> None:
    notebook = nbformat.read(notebooks.QUICKSTART, as_version=4)
    assert notebooks.pictures(notebook) == PICTURES
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or cell.execution_count
        assert not any(out.output_type == "error" for out in cell.get("outputs", ()))


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = notebooks.executed(tmp_path)
    assert notebooks.pictures(notebook) == PICTURES
    said = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ())
    )
    (dsc,) = re.findall(r"^DSC (\d\.\d+)$", said, re.MULTILINE)
    assert float(dsc) > 0.85
    assert (tmp_path / "quickstart/run/best.safetensors").is_file()
