"""Runs of seconds, on a model of a few thousand weights."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from train_helpers import discs

from swin_umamba.data import Case, normalize
from swin_umamba.train import Progress, TrainConfig, TrainResult, train

TINY: dict[str, Any] = {
    "dims": (4, 8),
    "depths": (1, 1),
    "decoder_depths": (1,),
    "d_state": 1,
    "drop_path_rate": 0.3,
}


def tiny_config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model_options": TINY,
        "patch_size": (16, 16),
        "iterations": 8,
        "validate_every": 4,
        "checkpoint_every": 3,
        "device": "cpu",
        "lr": 1e-3,
    }
    return TrainConfig(**settings | changes)


def disc_case(seed: int, side: int = 24) -> Case:
    image, mask = discs(side, seed)
    return Case(f"discs {seed}", normalize(image[None]), (mask > 0).astype(np.int64))


def go(folder: Path, config: TrainConfig, **options: Any) -> TrainResult:
    """Train on two cases, validate on two."""
    cases = [disc_case(i) for i in range(4)]
    return train(config, cases[:2], cases[2:], folder, **options)


def signalled_at(iteration: int, kind: signal.Signals) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if progress.iteration == iteration:
            os.kill(os.getpid(), kind)

    return on_progress


def assert_same_weights(a: Path, b: Path, name: str = "model.safetensors") -> None:
    first, second = load_file(a / name), load_file(b / name)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "waited", "step")} for r in records]
