"""The published trainings by name: every setting as in the original implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swin_umamba.runs.config import TrainConfig

EPOCH = 250  # iterations
COSINE_EPOCHS = 1_000  # after which the original implementation's rate would reach its end
DAGGER = "swin_umamba_d"


@dataclass(frozen=True)
class Preset:
    """The settings in which the published trainings differ.

    what: description of the data. patch_size, batch_size: as planned by nnU-Net there. epochs: of
    EPOCH iterations, after which the original implementation stops and evaluates.
    """

    what: str
    patch_size: tuple[int, int]
    batch_size: int
    epochs: int


PRESETS = {
    "abdomen_mri": Preset("AbdomenMR: 13 organs in MRI volumes, by slices", (320, 320), 30, 100),
    "endoscopy": Preset("Endovis17: instruments in endoscopic frames", (384, 640), 13, 250),
    "microscopy": Preset("NeurIPS Cell: cells of many kinds and stains", (512, 512), 12, 350),
}


def preset_config(
    name: str, *, model: str = DAGGER, pretrained: str | None = None, **changes: Any
) -> TrainConfig:
    """The config of a published training, for any model; `changes` override its fields.

    pretrained: weights to start from, with the encoder frozen for ten epochs; otherwise from
    scratch, where † then trains without deep supervision, as in the original implementation. All
    cases are used for training: fold="0" to "4" holds out a fifth. Raises ValueError for an unknown
    name, listing the valid ones, and for invalid changes.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    config = TrainConfig(
        preset=name,
        fold="all",
        model=model,
        deep_supervision=model != DAGGER or pretrained is not None,
        pretrained=pretrained,
        freeze_iterations=10 * EPOCH,
        patch_size=preset.patch_size,
        batch_size=preset.batch_size,
        foreground=1 / 3,
        augment=True,
        augmentation={},
        batch_dice=True,
        iterations=preset.epochs * EPOCH,
        decay_iterations=COSINE_EPOCHS * EPOCH,
        lr=1e-4,
        min_lr=1e-6,
        warmup=0.0,
        weight_decay=0.05,
        eps=1e-5,
        betas=(0.9, 0.999),
        clip_norm=12.0,
        ema=None,
        # The original implementation scores 50 patches per epoch; here whole images are segmented.
        validate_every=10 * EPOCH,
        overlap=0.5,
        amp="fp16",
    )
    return config.changed(changes)
