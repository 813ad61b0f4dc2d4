"""The networks that are pretrained: stem and encoder of a model, with a small head for the task."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_umamba.models import SegmentationModel, create_model

_HEAD_STD = 0.02


class Front(nn.Module):
    """The parts of a segmentation model before its decoder, with their names in the model.

    These are the encoder, and the stem if the model has one. x: (B, in_channels, H, W); H and W are
    zero-padded at the bottom and right to multiples of `stride`. Returns one map (B, C_i, H_i, W_i)
    per stage, finest first.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        stem: nn.Module | None = getattr(model, "stem", None)
        self.stem = stem
        self.vssm_encoder = model.vssm_encoder
        self.in_channels = model.in_channels
        self.stride = self.vssm_encoder.stride * (1 if stem is None else 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        bottom, right = (-n % self.stride for n in x.shape[-2:])
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        maps: list[Tensor] = self.vssm_encoder(x if self.stem is None else self.stem(x))
        return maps


def build_front(name: str, in_channels: int, options: dict[str, Any]) -> Front:
    """The front of `create_model(name, ...)` with random weights, on the CPU."""
    return Front(create_model(name, in_channels=in_channels, out_channels=2, **options))


class Classifier(nn.Module):
    """Logits (B, classes) of images: the mean of the coarsest map, a norm, and a linear layer."""

    def __init__(self, front: Front, classes: int) -> None:
        super().__init__()
        self.front = front
        width = _width(front)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=_HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.front(x)[-1].mean((2, 3))
        logits: Tensor = self.head(self.norm(pooled))
        return logits


class MaskedImageModel(nn.Module):
    """Images with their masked squares reconstructed: SimMIM (arXiv:2111.09886).

    x: (B, C + 1, H, W), an image and its mask, 1 where masked. The masked squares are replaced by a
    learned one. Unlike SimMIM's token it is applied to the image rather than behind the patch
    embedding, since embeddings by overlapping convolutions would see across its border. A linear
    layer on the coarsest map predicts all pixels; the result is (B, C, H, W).
    """

    def __init__(self, front: Front, side: int) -> None:
        super().__init__()
        self.front = front
        channels = front.in_channels
        self.token = nn.Parameter(torch.zeros(1, channels, side, side))
        nn.init.trunc_normal_(self.token, std=_HEAD_STD)
        self.head = nn.Conv2d(_width(front), channels * front.stride**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        image, mask = x[:, :-1], x[:, -1:]
        side = self.token.shape[-1]
        tiled = self.token.repeat(1, 1, -(-height // side), -(-width // side))
        seen = image * (1 - mask) + tiled[..., :height, :width] * mask
        pixels = F.pixel_shuffle(self.head(self.front(seen)[-1]), self.front.stride)
        return pixels[..., :height, :width]


def _width(front: Front) -> int:
    """Channels of the coarsest map."""
    return front.vssm_encoder.channels[-1]
