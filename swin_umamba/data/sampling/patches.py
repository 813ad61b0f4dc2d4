"""Random patches for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from swin_umamba.data.prepare.cache import CachedCases
from swin_umamba.data.sampling.augmentation import Augmentation, cut, draw_matrix, mirror, vary
from swin_umamba.data.sampling.case import Case
from swin_umamba.data.sampling.volumes import ANNOTATED, Positions, Volume, volumes_of


class PatchSampler:
    """Endless batches of augmented patches: `batch(index)` depends on the index alone.

    cases: at least one, all with the same number of channels; CachedCases are read from disk as
    needed. Volumes are sampled with equal probability, regardless of their number of slices.
    patch_size: (height, width); pixels outside of an image are 0. foreground: fraction of each
    batch whose patches are centered on a pixel of a random class above 0 of their volume, or of a
    random region, if it has any. By nnU-Net's rule these are the last ones in a batch of B, from
    round(B * (1 - foreground)) on, so none in a batch of 1. The others lie anywhere or, if some
    pixels are ignored, are centered on an annotated pixel. augment: True for nnU-Net's
    augmentation, False for none, or a custom Augmentation. seed: together with the index,
    determines every batch. rank, world_size: the process that makes its part of each batch, and the
    number of processes; batch_size is the whole batch, a multiple of world_size.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        patch_size: tuple[int, int],
        batch_size: int,
        foreground: float = 1 / 3,
        augment: bool | Augmentation = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not len(cases):
            raise ValueError("cases: got none, expected at least one")
        if seed < 0:
            raise ValueError(f"seed: got {seed}, expected 0 or above")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank}, expected 0 to {world_size - 1}")
        if batch_size % world_size:
            raise ValueError(f"batch_size: got {batch_size}, expected a multiple of {world_size}")
        self.volumes: Sequence[Volume] = (
            cases.volumes if isinstance(cases, CachedCases) else volumes_of(cases)
        )
        channels = {channels for volume in self.volumes for channels in volume.channels}
        if len(channels) > 1:
            raise ValueError(
                f"cases: got images of {sorted(channels)} channels, expected one number of channels"
            )
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.centred = batch_size - round(batch_size * (1 - foreground))
        default = Augmentation() if augment else None
        self.augmentation = augment if isinstance(augment, Augmentation) else default
        self.seed = seed
        share = batch_size // world_size
        self.part = range(rank * share, (rank + 1) * share)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, h, w) float32 and class indices (B, h, w) int64, -1 where ignored.

        B: batch_size / world_size. index: 0 or above, the iteration. The result depends only on it,
        the arguments and the cases, not on the order of calls or the process.
        """
        patches = [
            self._patch(
                np.random.default_rng((self.seed, index, i)),
                on_foreground=i >= self.batch_size - self.centred,
            )
            for i in self.part
        ]
        images, masks = zip(*patches, strict=True)
        return torch.stack(images), torch.stack(masks)

    def _patch(self, rng: np.random.Generator, on_foreground: bool) -> tuple[Tensor, Tensor]:
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        index, corner = self._window(volume, rng, on_foreground)
        config = self.augmentation
        matrix = draw_matrix(config, self.patch_size, rng) if config else None
        image, mask = cut(volume.image(index), volume.mask(index), corner, self.patch_size, matrix)
        if config:
            varied = _zero_outside(vary(image, config, rng), image, volume.masked)
            image, mask = mirror(varied, mask, config, rng)
        return image, mask

    def _window(
        self, volume: Volume, rng: np.random.Generator, on_foreground: bool
    ) -> tuple[int, tuple[int, int]]:
        """A slice, and the upper left corner of a patch in it."""
        centre = _centre(volume.positions(), rng, on_foreground)
        if centre is None:
            index = int(rng.integers(volume.slices))
            low, high = self._room(volume.mask(index).shape)
            row, column = (int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
            return index, (row, column)
        index, place = centre
        shape = volume.mask(index).shape
        # As in nnU-Net: within the upper left border, but beyond the lower right one if necessary.
        row, column = (
            max(low, at - side // 2)
            for at, side, low in zip(
                divmod(place, shape[1]), self.patch_size, self._room(shape)[0], strict=True
            )
        )
        return index, (row, column)

    def _room(self, shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """The first and last start of a patch along each axis, as in nnU-Net.

        From flush with one border to flush with the other; a smaller image lies in the center.
        """
        spare = [full - side for full, side in zip(shape, self.patch_size, strict=True)]
        return [min(n // 2, 0) for n in spare], [n if n >= 0 else -(-n // 2) for n in spare]


def _centre(
    positions: Positions, rng: np.random.Generator, on_foreground: bool
) -> tuple[int, int] | None:
    """A slice and a flat index in it to center a patch on; None for anywhere."""
    keys = np.unique(positions[:, 0]) if on_foreground else positions[:1, 0]
    foreground = keys[keys > ANNOTATED] if on_foreground else keys[:0]
    eligible = foreground if len(foreground) else keys[keys == ANNOTATED]
    if not len(eligible):
        return None
    key = rng.choice(eligible)
    first, end = np.searchsorted(positions[:, 0], [key, key + 1])
    _, index, place = positions[rng.integers(first, end)].tolist()
    return index, place


def _zero_outside(varied: Tensor, image: Tensor, masked: tuple[int, ...]) -> Tensor:
    """Keep masked channels 0 where all of them were, as nnU-Net does with its nonzero mask."""
    if masked:
        channels = list(masked)
        outside = (image[channels] == 0).all(0)
        varied = varied.clone()
        varied[channels] = varied[channels].masked_fill(outside, 0)
    return varied
