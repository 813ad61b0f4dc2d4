"""All randomness of a batch, drawn for the whole batch from its iteration number.

So a resumed run, or one with another number of processes, sees exactly the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.tiles import Indices

Floats = npt.NDArray[np.float32]

_ORDER, _DRAWS, _SCORED = range(3)  # streams of random numbers


@dataclass(frozen=True)
class Draws:
    """Random numbers for a part of a batch of B images.

    views: (B, 2, 3), affine maps of crop and flip in the convention of torch's affine_grid.
    colors: (B, 3), brightness in deviations, and factors of contrast and saturation. shares: (B,),
    weight of the image itself when it is mixed with its neighbor. masks: (B, squares); the lowest
    values are masked.
    """

    views: Floats
    colours: Floats
    shares: Floats
    masks: Floats


class Order:
    """Which images are in each batch: random permutations of all images, one after another."""

    def __init__(self, indices: Indices, batch_size: int, seed: int) -> None:
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self._epoch = -1
        self._shuffled = indices

    def batch(self, iteration: int) -> Indices:
        first, count = iteration * self.batch_size, len(self.indices)
        found: list[int] = []
        while len(found) < self.batch_size:
            epoch, at = divmod(first + len(found), count)
            found += self._of(epoch)[at : at + self.batch_size - len(found)].tolist()
        return np.array(found, np.int64)

    def _of(self, epoch: int) -> Indices:
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, _ORDER, epoch))
            self._epoch, self._shuffled = epoch, rng.permutation(self.indices)
        return self._shuffled


def draw(config: PretrainConfig, iteration: int, part: slice) -> Draws:
    """The random numbers of an iteration's batch, of which this process uses `part`."""
    rng = np.random.default_rng((config.seed, _DRAWS, iteration))
    count = config.batch_size
    shares: npt.NDArray[np.float64] = np.ones(count)
    if config.task == CLASSES and config.mixup > 0:
        # Neighbors are mixed with each other, with the same weights.
        shares = np.repeat(rng.beta(config.mixup, config.mixup, count // 2), 2)
    numbers = rng.random((count, 9))
    masks = rng.random((count, squares(config))) if config.task != CLASSES else np.empty((count, 0))
    colours = config.colour * (2 * numbers[:, 6:9] - 1) + (0, 1, 1)
    return Draws(
        _views(config, numbers[:, :6])[part].astype(np.float32),
        colours[part].astype(np.float32),
        shares[part].astype(np.float32),
        masks[part].astype(np.float32),
    )


def draw_for_scores(config: PretrainConfig, indices: Indices) -> Draws:
    """For scoring: whole images, and masks that stay the same."""
    count = len(indices)
    views = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    masks = np.empty((count, 0), np.float32)
    if config.task != CLASSES:
        rows = [np.random.default_rng((config.seed, _SCORED, i)) for i in indices.tolist()]
        masks = np.stack([rng.random(squares(config), np.float32) for rng in rows])
    colours = np.tile(np.array([0, 1, 1], np.float32), (count, 1))
    return Draws(views, colours, np.ones(count, np.float32), masks)


def squares(config: PretrainConfig) -> int:
    """The number of squares in an image, some of which are masked."""
    return math.prod(-(-n // config.mask_side) for n in config.image_size)


def _views(config: PretrainConfig, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """numbers: (B, 6), 0..1: area, aspect, position in x and y, flips."""
    low, high = config.crop
    area = low + (high - low) * numbers[:, 0]
    aspect = np.exp(math.log(config.aspect) * (2 * numbers[:, 1] - 1))
    height, width = config.image_size
    aspect = aspect * (width / height)
    scale_x = np.minimum(np.sqrt(area * aspect), 1)
    scale_y = np.minimum(np.sqrt(area / aspect), 1)
    views = np.zeros((len(numbers), 2, 3))
    views[:, 0, 0] = np.where(numbers[:, 4] < config.flip, -scale_x, scale_x)
    views[:, 1, 1] = np.where(numbers[:, 5] < config.flip_vertical, -scale_y, scale_y)
    views[:, 0, 2] = (1 - scale_x) * (2 * numbers[:, 2] - 1)
    views[:, 1, 2] = (1 - scale_y) * (2 * numbers[:, 3] - 1)
    return views
