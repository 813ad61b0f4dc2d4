"""The two tasks: predict an image's class, or its masked pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba.errors import UserError
from swin_umamba.models.loading import laid_out
from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.networks import Classifier, Front, MaskedImageModel, build_front
from swin_umamba.runs.config import network_options

Network = Classifier | MaskedImageModel


def build_network(config: PretrainConfig, channels: int, classes: int) -> Network:
    """The network on the CPU, with random weights from the config's seed.

    Raises UserError for a model or options that do not exist.
    """
    options = network_options(config.encoder, config.model_options)
    arguments: dict[str, Any] = {
        "name": config.model,
        "in_channels": channels,
        "out_channels": 2,
        **options,
    }
    try:
        laid_out(arguments)
        torch.manual_seed(config.seed)
        front: Front = build_front(config.model, channels, options)
    except ValueError as error:
        raise UserError(f"cannot build the model: {error}") from error
    if config.task == CLASSES:
        return Classifier(front, classes)
    return MaskedImageModel(front, config.mask_side)


def loss_of(config: PretrainConfig) -> nn.Module:
    """The loss between the network's output and the target from Views."""
    return ClassLoss() if config.task == CLASSES else MaskedLoss()


class ClassLoss(nn.Module):
    """Cross-entropy between logits (B, classes) and class probabilities, in float32."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * logits.float().log_softmax(1)).sum(1).mean()


class MaskedLoss(nn.Module):
    """Mean absolute difference over the masked pixels; targets: image and mask (B, C + 1, H, W)."""

    def forward(self, predicted: Tensor, targets: Tensor) -> Tensor:
        image, mask = targets[:, :-1], targets[:, -1:]
        wrong = (predicted.float() - image).abs() * mask
        return wrong.sum() / (mask.sum() * image.shape[1])


@dataclass(frozen=True)
class Held:
    """A network's scores on held-out images; None if there are none.

    accuracy: of the most probable class, if classes are predicted.
    """

    accuracy: float | None
    loss: float | None

    @property
    def value(self) -> float | None:
        return self.accuracy

    def facts(self) -> dict[str, Any]:
        found = {"accuracy": self.accuracy, "held_out_loss": self.loss}
        return {name: value for name, value in found.items() if value is not None}
