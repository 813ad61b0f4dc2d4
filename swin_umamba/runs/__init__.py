"""What the folder of a training run holds: config, plan, log, checkpoints and weights."""

from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.run import Run

__all__ = ["Run", "TrainConfig"]
