"""How the trainers differ from nnU-Net's, without importing nnU-Net."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swin_umamba.common.encoders import DEFAULT_ENCODER
from swin_umamba.errors import UserError
from swin_umamba.models import SegmentationModel, create_model

PRETRAINED_VARIABLE = "SWIN_UMAMBA_PRETRAINED"
"""Variable with the weights file that trainers without "Scratch" in their names start from."""

# From the original implementation; the same as the defaults of swin_umamba.train.TrainConfig, which
# is not imported since it needs more packages.
LR = 1e-4
MIN_LR = 1e-6
WEIGHT_DECAY = 0.05
EPS = 1e-5
BETAS = (0.9, 0.999)
FROZEN_EPOCHS = 10


@dataclass(frozen=True)
class Recipe:
    """What one trainer trains, and how.

    model, encoder: as in `create_model`. pretrained: start from the file named by
    PRETRAINED_VARIABLE, with the encoder frozen for the first epochs. deep_supervision: train the
    logits of all scales. epochs: number of epochs, by default nnU-Net's 1,000.
    """

    model: str
    pretrained: bool
    deep_supervision: bool = True
    epochs: int | None = None
    encoder: str = DEFAULT_ENCODER

    @property
    def frozen_epochs(self) -> int:
        """Number of epochs in which the encoder, except its patch embedding, is frozen."""
        return FROZEN_EPOCHS if self.pretrained else 0

    def build(
        self,
        patch_size: Sequence[int],
        in_channels: int,
        out_channels: int,
        deep_supervision: bool,
    ) -> SegmentationModel:
        """The model with random weights, for patches of that size in pixels.

        Raises UserError for patches that are not two-dimensional.
        """
        if len(patch_size) != 2:
            raise UserError(
                f"configuration: its patches have {len(patch_size)} dimensions, expected 2:"
                " train and predict with nnU-Net's configuration 2d"
            )
        return create_model(
            self.model,
            in_channels=in_channels,
            out_channels=out_channels,
            deep_supervision=deep_supervision,
            **({} if self.encoder == DEFAULT_ENCODER else {"encoder": self.encoder}),
        )


def pretrained_file(trainer: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The file named by PRETRAINED_VARIABLE. Raises UserError if it is unset or not a file.

    trainer: name of the trainer, for the message.
    """
    value = environment.get(PRETRAINED_VARIABLE, "")
    if not value:
        raise UserError(
            f"{trainer} starts from pretrained weights: set {PRETRAINED_VARIABLE} to their file,"
            " or train from scratch with the trainer whose name ends in Scratch"
        )
    path = Path(value).expanduser()
    if not path.is_file():
        raise UserError(f"{PRETRAINED_VARIABLE}: got {value}, expected a file of weights")
    return path


def build_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """The original implementation's optimizer, with all parameters, including frozen ones."""
    return torch.optim.AdamW(
        model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY
    )


class CosineSchedule:
    """Half a cosine from LR to MIN_LR over the given epochs, with nnU-Net's scheduler interface."""

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        self.optimizer = optimizer
        self.epochs = epochs

    def step(self, epoch: int) -> None:
        """Set the learning rate for that epoch, counted from 0."""
        rate = MIN_LR + (LR - MIN_LR) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def supervision_scales(model: SegmentationModel, patch_size: Sequence[int]) -> list[list[float]]:
    """Height and width of each scale's logits as fractions of the patch, finest first.

    For a scale of 1/s these are 1/s, or slightly more if s does not divide the patch: nnU-Net
    rounds its targets to the nearest size, while sizes of logits are rounded up.
    """
    return [[-(-size // scale) / size for size in patch_size] for scale in model.scales]


def inner_model(network: nn.Module) -> SegmentationModel:
    """The model inside the wrappers of torch.compile and DistributedDataParallel."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    network = getattr(network, "_orig_mod", network)
    assert isinstance(network, SegmentationModel)
    return network


def with_encoder_frozen(network: nn.Module, frozen: bool) -> nn.Module:
    """Freeze or unfreeze the model's encoder; returns the network to train with from then on.

    This is the network itself, except with DistributedDataParallel: it waits for gradients of the
    parameters that required them when it was created, so it is recreated.
    """
    model = inner_model(network)
    if frozen:
        model.freeze_encoder()
    else:
        model.unfreeze_encoder()
    if isinstance(network, DistributedDataParallel):
        return DistributedDataParallel(network.module, device_ids=network.device_ids)
    return network
