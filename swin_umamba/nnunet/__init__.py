"""The models inside stock nnU-Net: trainers that its commands find by `nnUNet_extTrainer`.

Only `base` and the trainers need the package nnunetv2; `recipe` and this do not.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

__all__ = ["TRAINER_FOLDER", "how_to_install"]

TRAINER_FOLDER = Path(__file__).resolve().parent / "trainers"
"""What `nnUNet_extTrainer` must name. nnU-Net imports every module there, by its bare name."""


def how_to_install() -> str:
    """The command that installs nnU-Net and keeps the installed PyTorch.

    Unless PyTorch is named, pip may replace a CPU-only build, or choose an unsupported version.
    """
    return f"pip install 'nnunetv2>=2.8' torch=={importlib.metadata.version('torch')}"
