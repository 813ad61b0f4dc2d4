"""Training: `train(config, train_cases, val_cases, folder)`, or from a dataset with `prepare`."""

from swin_umamba.loop.session import Progress
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.presets import PRESETS, Preset, preset_config
from swin_umamba.train.from_dataset import Prepared, prepare, read_run, train_prepared
from swin_umamba.train.loop import TrainResult, train

__all__ = [
    "PRESETS",
    "Prepared",
    "Preset",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "prepare",
    "preset_config",
    "read_run",
    "train",
    "train_prepared",
]
