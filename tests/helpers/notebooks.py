"""Run the quickstart notebook; `python tests/helpers/notebooks.py` renews the outputs it keeps."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

QUICKSTART = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The quickstart after running it in `folder`. CellExecutionError if a cell fails."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env={**os.environ, "COLUMNS": "100"})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":  # warnings of libraries on one machine
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> int:
    """Number of PNG outputs."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    return sum("image/png" in o.get("data", {}) for o in outputs)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), QUICKSTART)
