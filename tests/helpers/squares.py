"""A dataset of bright squares, and a short run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from predict_helpers import invoke

MODEL = '{"model_options": {"dims": [4, 8], "depths": [1, 1], "d_state": 1}}'


def write_squares(folder: Path) -> None:
    """Write six images and masks of 0 and 255 to folder/images and folder/masks."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(6):
        mask = np.zeros((40, 52), np.uint8)
        mask[8 + i : 24 + i, 10:34] = 255
        image = (40 + 0.6 * mask + rng.normal(0, 8, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"case{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"case{i}.png")


def train_on_squares(root: Path) -> None:
    """Write the dataset to root/set and train on it in root/run."""
    write_squares(root / "set")
    (root / "model.json").write_text(MODEL)
    result = invoke(
        *("train", root / "set", root / "run", "--config", root / "model.json"),
        *("--iterations", 12, "--batch-size", 2, "--patch-size", 32, 32, "--lr", 0.01),
        *("--validate-every", 6, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
