"""For tests of prediction: the command line, a network in place of a model, and plans."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.data import Intensity, Plan


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def plan_of(classes: int, channels: int = 1, **changes: Any) -> Plan:
    """Pixels as they are, labels 0, 1, ..., windows of 32x32; `changes` are further fields."""
    facts: dict[str, Any] = {
        "dataset": "patterns",
        "channel_names": tuple(f"c{i}" for i in range(channels)),
        "files_per_image": 1,
        "labels": {f"class {i}": i for i in range(classes)},
        "values": tuple(range(classes)),
        "ignore_label": None,
        "file_ending": ".png",
        "normalization": ("none",) * channels,
        "intensities": (Intensity(0.0, 1.0, 0.0, -1.0, 1.0),) * channels,
        "axis": 0,
        "spacing": (1.0, 1.0),
        "patch_size": (32, 32),
    }
    return Plan(**{**facts, **changes})


class Nearest:
    """A network that predicts the class whose number, times `step`, is closest to the pixel."""

    def __init__(self, classes: int, step: float = 1.0, channels: int = 1) -> None:
        self.name, self.device = "Nearest", torch.device("cpu")
        self.in_channels, self.out_channels, self.step = channels, classes, step

    def __call__(self, windows: Tensor) -> Tensor:
        numbers = self.step * torch.arange(self.out_channels).view(1, -1, 1, 1)
        return -(((windows[:, :1] - numbers) / self.step) ** 2)
