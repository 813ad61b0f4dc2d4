"""Trainers for `nnUNetv2_train -tr`, with the names of the original implementation.

V2: with an encoder of VMamba's second generation and, in Swin-UMamba†, its blocks in the decoder.
The trainers of five epochs, named in nnU-Net's style, are for trying out the setup.
"""

from __future__ import annotations

from swin_umamba.nnunet.base import SwinUMambaTrainer
from swin_umamba.nnunet.recipe import Recipe

SECOND = "vmamba_v2_tiny_s1l8"


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
    """Swin-UMamba† from scratch, without deep supervision as in the original implementation."""

    recipe = Recipe("swin_umamba_d", pretrained=False, deep_supervision=False)


class nnUNetTrainerSwinUMambaV2(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba with VMamba's second generation, from pretrained weights."""

    recipe = Recipe("swin_umamba", pretrained=True, encoder=SECOND)


class nnUNetTrainerSwinUMambaV2Scratch(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba with VMamba's second generation, from scratch."""

    recipe = Recipe("swin_umamba", pretrained=False, encoder=SECOND)


class nnUNetTrainerSwinUMambaDV2(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba† with VMamba's second generation, from pretrained weights."""

    recipe = Recipe("swin_umamba_d", pretrained=True, encoder=SECOND)


class nnUNetTrainerSwinUMambaDV2Scratch(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba† with VMamba's second generation, from scratch, without deep supervision."""

    recipe = Recipe("swin_umamba_d", pretrained=False, deep_supervision=False, encoder=SECOND)


class nnUNetTrainerSwinUMambaScratch_5epochs(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba from scratch, for five epochs."""

    recipe = Recipe("swin_umamba", pretrained=False, epochs=5)


class nnUNetTrainerSwinUMambaDScratch_5epochs(SwinUMambaTrainer):  # noqa: N801
    """Swin-UMamba† from scratch, for five epochs."""

    recipe = Recipe("swin_umamba_d", pretrained=False, deep_supervision=False, epochs=5)
