"""Random patches for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from swin_umamba.data.prepare.cache import CachedCases
from swin_umamba.data.sampling.augmentation import Augmentation, cut, draw_matrix, mirror, vary
from swin_umamba.data.sampling.case import Case
from swin_umamba.data.sampling.volumes import Volume, volumes_of


class PatchSampler:
    """Endless batches of augmented patches: `batch(index)` is always the same for one index.

    cases: at least one, all with as many channels; CachedCases are read from disk as needed.
    patch_size: (height, width); smaller images are padded with 0. foreground: share of each batch
    whose patches are centred on a pixel of a random class of their volume other than 0, where it
    has any; the others lie anywhere. Volumes are drawn with even odds, whatever their number of
    slices. augment: True for nnU-Net's augmentation, False for none, or one's own numbers. seed:
    decides, with the index, every batch. rank, world_size: of so many processes that share each
    batch, the one that makes this part of it; batch_size is that of the whole, a multiple of
    world_size.
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
            raise ValueError(f"cases: got images of {sorted(channels)} channels, expected one kind")
        self.patch_size = patch_size
        self.batch_size = batch_size
        # As nnU-Net: the last ones of a batch, rounded, and at least one of it.
        self.centred = max(round(batch_size * foreground), 1) if foreground > 0 else 0
        default = Augmentation() if augment else None
        self.augmentation = augment if isinstance(augment, Augmentation) else default
        self.seed = seed
        share = batch_size // world_size
        self.part = range(rank * share, (rank + 1) * share)

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, h, w) float32 and class indices (B, h, w) int64, -1 where ignored.

        B: batch_size / world_size. index: 0 or above, as the iteration. Depends on nothing but it,
        the arguments and the cases: the order of calls, and the process, make no difference.
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
        positions = volume.positions() if on_foreground else None
        if positions is not None and len(positions):
            label = rng.choice(np.unique(positions[:, 0]))
            first, end = np.searchsorted(positions[:, 0], [label, label + 1])
            _, index, place = positions[rng.integers(first, end)].tolist()
            shape = volume.mask(index).shape
            row, column = divmod(place, shape[1])
            wanted = (row - self.patch_size[0] // 2, column - self.patch_size[1] // 2)
        else:
            index = int(rng.integers(volume.slices))
            shape = volume.mask(index).shape
            # Anywhere from flush with one border to flush with the other.
            room = [max(full - part, 0) for full, part in zip(shape, self.patch_size, strict=True)]
            wanted = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))
        top, left = map(_within, wanted, self.patch_size, shape)
        config = self.augmentation
        matrix = draw_matrix(config, self.patch_size, rng) if config else None
        image, mask = cut(
            volume.image(index), volume.mask(index), (top, left), self.patch_size, matrix
        )
        if config:
            image, mask = mirror(vary(image, config, rng), mask, config, rng)
        return image, mask


def _within(start: int, part: int, full: int) -> int:
    """The nearest start of a window within the image; in larger ones the image is centred."""
    return min(max(start, 0), full - part) if full >= part else -((part - full) // 2)
