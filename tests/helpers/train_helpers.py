"""Images with bright discs, and a model small enough to train in a test."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TINY_MODEL: dict[str, Any] = {
    "dims": (8, 16),
    "depths": (1, 1),
    "decoder_depths": (1,),
    "d_state": 2,
    "drop_path_rate": 0.0,
}


def discs(side: int, seed: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """A noisy image (side, side) with bright discs all over, and their instance numbers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), np.uint16)
    number = 0
    for top in range(8, side - 4, 20):
        for left in range(8, side - 4, 20):
            number += 1
            cy, cx = top + rng.uniform(-2, 2), left + rng.uniform(-2, 2)
            mask[(y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(4, 7) ** 2] = number
    image = 20 + 60 * (mask > 0) + rng.normal(0, 8, mask.shape)
    return image.clip(0, 65535).astype(np.uint16), mask
