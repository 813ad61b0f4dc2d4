"""Turn tiles into network inputs, on their device and a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.draws import Draws
from swin_umamba.pretrain.store import moved


class Views:
    """Crops, flips, color-jitters, normalizes, mixes and masks a batch of tiles.

    mean, deviation: of each channel, in the tiles' unit. classes: their number.
    """

    def __init__(
        self,
        config: PretrainConfig,
        mean: Sequence[float],
        deviation: Sequence[float],
        classes: int,
        device: torch.device,
    ) -> None:
        self.config, self.classes, self.device = config, classes, device
        self.mean, self.factor = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (mean, [1 / d for d in deviation])
        )

    def __call__(
        self, tiles: Tensor, labels: Tensor | None, draws: Draws, *, soften: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The network's input and the target of the loss.

        tiles: (B, C, S, S). labels: (B,). The input is (B, C, H, W), the target class probabilities
        (B, classes), smoothed if `soften`; if pixels are predicted, both are image and mask (B, C +
        1, H, W).
        """
        views, colours, shares, noise = (
            moved(values, self.device)
            for values in (draws.views, draws.colours, draws.shares, draws.masks)
        )
        height, width = self.config.image_size
        images = (tiles.to(torch.float32) - self.mean) * self.factor
        grid = F.affine_grid(views, [len(tiles), 1, height, width], align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        if self.config.normalization == "image":
            mean = images.mean((2, 3), keepdim=True)
            deviation = images.std((2, 3), keepdim=True, correction=0)
            images = (images - mean) / deviation.clamp_min(1e-3)
        images = _coloured(images, colours)
        if self.config.task != CLASSES:
            both = torch.cat((images, self._masks(noise)), 1)
            return both, both
        assert labels is not None
        smoothing = self.config.smoothing if soften else 0.0
        targets = F.one_hot(labels, self.classes) * (1 - smoothing) + smoothing / self.classes
        if self.config.mixup > 0 and soften:
            images = _mixed(images, shares)
            targets = _mixed(targets, shares)
        if images.shape[1] > 1:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, targets

    def _masks(self, noise: Tensor) -> Tensor:
        """(B, 1, H, W) of 0 and 1, with the same number of masked squares in every image."""
        side, share = self.config.mask_side, self.config.mask_share
        rows, columns = (-(-n // side) for n in self.config.image_size)
        masked = max(round(share * rows * columns), 1)
        places = noise.argsort(1)[:, :masked]
        masks = torch.zeros_like(noise).scatter_(1, places, 1.0).view(-1, 1, rows, columns)
        height, width = self.config.image_size
        whole = masks.repeat_interleave(side, 2).repeat_interleave(side, 3)
        return whole[..., :height, :width]


def _coloured(images: Tensor, colours: Tensor) -> Tensor:
    """Change saturation, contrast, then brightness, each image with its own numbers."""
    brightness, contrast, saturation = colours.view(-1, 3, 1, 1, 1).unbind(1)
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = torch.lerp(grey, images, saturation)
    return images * contrast + brightness


def _mixed(values: Tensor, shares: Tensor) -> Tensor:
    """Mix each pair of neighbors by their weights; mixup, arXiv:1710.09412."""
    other = values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.lerp(other, values, shares.view(-1, *([1] * (values.ndim - 1))))
