"""A run to predict with."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
from made_once import made_once
from predict_helpers import invoke
from squares import train_on_squares


@pytest.fixture(scope="session")
def exported(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as an ONNX file."""
    pytest.importorskip("onnxruntime")
    export = partial(_export, trained[1])
    return made_once(tmp_path_factory, "squares_onnx", export) / "model.onnx"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset of bright squares with masks of 0 and 255, and a short run on it."""
    root = made_once(tmp_path_factory, "squares", train_on_squares)
    return root / "set", root / "run"


def _export(run: Path, folder: Path) -> None:
    logged: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        result = invoke("export", run, folder / "model.onnx")
    finally:
        logging.getLogger().removeHandler(handler)
    assert result.exit_code == 0, result.output
    assert not logged  # the exporter's warnings of its own insides
