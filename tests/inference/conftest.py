"""A run to predict with."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_once import made_once
from PIL import Image
from predict_helpers import invoke

MODEL = '{"model_options": {"dims": [4, 8], "depths": [1, 1], "d_state": 1}}'


@pytest.fixture(scope="session")
def exported(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as an ONNX file."""
    pytest.importorskip("onnxruntime")
    export = partial(_export, trained[1])
    return made_once(tmp_path_factory, "squares_onnx", export) / "model.onnx"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset of bright squares with masks of 0 and 255, and a short run on it."""
    root = made_once(tmp_path_factory, "squares", _train_on_squares)
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


def _train_on_squares(root: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "set" / kind).mkdir(parents=True)
    for i in range(6):
        mask = np.zeros((40, 52), np.uint8)
        mask[8 + i : 24 + i, 10:34] = 255
        image = (40 + 0.6 * mask + rng.normal(0, 8, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "set" / "images" / f"case{i}.png")
        Image.fromarray(mask).save(root / "set" / "masks" / f"case{i}.png")
    (root / "model.json").write_text(MODEL)
    result = invoke(
        *("train", root / "set", root / "run", "--config", root / "model.json"),
        *("--iterations", 12, "--batch-size", 2, "--patch-size", 32, 32, "--lr", 0.01),
        *("--validate-every", 6, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
