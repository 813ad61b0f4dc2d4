"""Trainers for `nnUNetv2_train -tr`, by the names that the release gives its own."""

from __future__ import annotations

from swin_umamba.nnunet.base import SwinUMambaTrainer
from swin_umamba.nnunet.recipe import Recipe


class nnUNetTrainerSwinUMamba(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba from pretrained weights."""

    recipe = Recipe("swin_umamba", pretrained=True)


class nnUNetTrainerSwinUMambaScratch(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba from scratch."""

    recipe = Recipe("swin_umamba", pretrained=False)


class nnUNetTrainerSwinUMambaD(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba† from pretrained weights."""

    recipe = Recipe("swin_umamba_d", pretrained=True)


class nnUNetTrainerSwinUMambaDScratch(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba† from scratch; the release trains it without deep supervision."""

    recipe = Recipe("swin_umamba_d", pretrained=False, deep_supervision=False)
