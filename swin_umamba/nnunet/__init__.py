"""The models inside stock nnU-Net: trainers that its commands find by `nnUNet_extTrainer`.

Only `base` and the trainers need the package nnunetv2; `recipe` and this do not.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["TRAINER_FOLDER"]

TRAINER_FOLDER = Path(__file__).resolve().parent / "trainers"
"""What `nnUNet_extTrainer` must name. nnU-Net imports every module there, by its bare name."""
