"""Random patches for training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.data.case import Case

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.int64]


class PatchSampler:
    """Endless batches of augmented patches; the same seed gives the same batches.

    cases: at least one, all with as many channels. patch_size: (height, width); smaller images are
    padded with 0. foreground: share of each batch whose patches are centred on a pixel of a
    random class of their case other than 0, where it has any; the others lie anywhere.
    augment: flips, quarter turns (only half turns of patches that are not square), contrast,
    brightness and noise.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        patch_size: tuple[int, int],
        batch_size: int,
        foreground: float = 1 / 3,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        if not cases:
            raise ValueError("cases: got none, expected at least one")
        channels = {case.image.shape[0] for case in cases}
        if len(channels) > 1:
            raise ValueError(f"cases: got images of {sorted(channels)} channels, expected one kind")
        self.cases = [_pad(case, patch_size) for case in cases]
        self.classes = [_pixels_by_class(case.mask) for case in self.cases]
        self.patch_size = patch_size
        self.batch_size = batch_size
        # As nnU-Net: the last ones of a batch, rounded, and at least one of it.
        self.centred = max(round(batch_size * foreground), 1) if foreground > 0 else 0
        self.augment = augment
        self.rng = np.random.default_rng(seed)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images (B, C, h, w) float32 and class indices (B, h, w) int64."""
        images, masks = [], []
        for i in range(self.batch_size):
            image, mask = self._patch(on_foreground=i >= self.batch_size - self.centred)
            if self.augment:
                image, mask = augment(image, mask, self.rng)
            images.append(image)
            masks.append(mask)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))

    def _patch(self, on_foreground: bool) -> tuple[Image, Mask]:
        index = int(self.rng.integers(len(self.cases)))
        case, classes = self.cases[index], self.classes[index]
        top, left = (
            int(self.rng.integers(full - part + 1))
            for full, part in zip(case.mask.shape, self.patch_size, strict=True)
        )
        if on_foreground and classes:
            pixels = classes[int(self.rng.integers(len(classes)))]
            centre = np.unravel_index(pixels[self.rng.integers(len(pixels))], case.mask.shape)
            top, left = (
                min(max(int(at) - part // 2, 0), full - part)
                for at, part, full in zip(centre, self.patch_size, case.mask.shape, strict=True)
            )
        window = (slice(top, top + self.patch_size[0]), slice(left, left + self.patch_size[1]))
        return case.image[(slice(None), *window)], case.mask[window]


def augment(image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Turn and flip a patch (C, h, w) with its mask (h, w); vary its contrast and add noise."""
    step = 1 if mask.shape[0] == mask.shape[1] else 2
    turns = step * int(rng.integers(4 // step))
    image, mask = np.rot90(image, turns, axes=(1, 2)), np.rot90(mask, turns)
    if rng.random() < 0.5:
        image, mask = image[:, :, ::-1], mask[:, ::-1]
    contrast, brightness = rng.uniform(0.75, 1.25), rng.normal(0.0, 0.1)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0.0, 0.1)
    image = image * contrast + brightness + noise
    return image.astype(np.float32), np.ascontiguousarray(mask)


def _pad(case: Case, size: tuple[int, int]) -> Case:
    missing = [max(want - have, 0) for want, have in zip(size, case.mask.shape, strict=True)]
    if not any(missing):
        return case
    around = [(m // 2, m - m // 2) for m in missing]
    return Case(case.name, np.pad(case.image, [(0, 0), *around]), np.pad(case.mask, around))


def _pixels_by_class(mask: Mask) -> list[npt.NDArray[np.intp]]:
    """The flat positions of every class present, without class 0."""
    return [np.flatnonzero(mask == label) for label in np.unique(mask) if label > 0]
