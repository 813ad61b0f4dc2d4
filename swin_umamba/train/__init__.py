"""Training: `train(config, train_cases, val_cases, folder)`."""

from swin_umamba.train.config import TrainConfig
from swin_umamba.train.loop import Progress, TrainResult, train

__all__ = ["Progress", "TrainConfig", "TrainResult", "train"]
