"""Pretrainings of seconds: squares of three colors, and a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from run_helpers import TINY

from swin_umamba.pretrain import PretrainConfig, PretrainResult, Tiles, pretrain

SIDE = 16
NO_DECODER = {name: value for name, value in TINY.items() if name != "decoder_depths"}


def coloured_tiles(count: int = 24, seed: int = 0, side: int = SIDE) -> Tiles:
    """Noise in which one of three channels, that of the class, is bright in a square."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 90, (count, 3, side, side), dtype=np.uint8)
    quarter = side // 4
    for image, label in zip(pixels, labels, strict=True):
        image[label, quarter:-quarter, quarter:-quarter] += 150
    return Tiles("colours", pixels, labels, ("red", "green", "blue"), f"{seed:032x}")


def write_archive(folder: Path, tiles: Tiles) -> Path:
    """tiles.npy and labels.npy."""
    folder.mkdir(parents=True)
    np.save(folder / "tiles.npy", tiles.pixels.transpose(0, 2, 3, 1))
    if tiles.labels is not None:
        np.save(folder / "labels.npy", tiles.labels.astype(np.uint8))
    return folder


def tiny_pretraining(**changes: Any) -> PretrainConfig:
    settings: dict[str, Any] = {
        "model_options": TINY,
        "image_size": (SIDE, SIDE),
        "mask_patch": 8,
        "batch_size": 8,
        "iterations": 6,
        "validate_every": 3,
        "checkpoint_every": 2,
        "held_out": 0.25,
        "device": "cpu",
        "ema": 0.5,
    }
    return PretrainConfig(**settings | changes)


def go_pretrain(folder: Path, config: PretrainConfig, **options: Any) -> PretrainResult:
    return pretrain(config, options.pop("tiles", coloured_tiles()), folder, **options)
