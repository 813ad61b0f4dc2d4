"""Resample a stream of bands of rows: the same as resampling the whole image, in bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Floats = npt.NDArray[np.float32]


class RowResampler:
    """Convert bands (..., rows, w) of images (h, w), from top to bottom, to bands of images of
    `size`.

    Bilinear, smoothed when downsampling, as in `data.prepare.resampling.resample_image` with order
    1. `push` returns the rows that no later band can change: (..., rows, W), possibly none.
    """

    def __init__(self, have: tuple[int, int], size: tuple[int, int]) -> None:
        self.width = size[1]
        self.indices, self.weights = _taps(have[0], size[0])
        self.last = self.indices.max(1)  # rising
        self.done = 0  # rows of the output
        self.first = 0  # index of the first input row in `held`
        self.held: Floats | None = None

    def push(self, band: Floats) -> Floats:
        wide = _columns_resampled(band, self.width)
        held = wide if self.held is None else np.concatenate([self.held, wide], axis=-2)
        until = int(np.searchsorted(self.last, self.first + held.shape[-2]))
        indices = self.indices[self.done : until] - self.first
        weights = self.weights[self.done : until]
        found = np.zeros((*held.shape[:-2], until - self.done, self.width), np.float32)
        for tap in range(indices.shape[1]):
            found += weights[:, tap, None] * held[..., indices[:, tap], :]
        self.done = until
        needed = self.first + held.shape[-2]
        if until < len(self.indices):
            needed = min(max(int(self.indices[until].min()), self.first), needed)
        self.held = held[..., needed - self.first :, :].copy()
        self.first = needed
        return found


def _columns_resampled(band: Floats, width: int) -> Floats:
    if band.shape[-1] == width:
        return band
    planes = band.reshape(1, -1, *band.shape[-2:])
    size = (band.shape[-2], width)
    resized = F.interpolate(torch.from_numpy(planes), size, mode="bilinear", antialias=True)
    found: Floats = resized.numpy().reshape(*band.shape[:-1], width)
    return found


def _taps(have: int, want: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which input rows make each output row, and their weights, both (want, taps).

    A triangle around each center with half-width 1, or `have / want` when downsampling, truncated
    at the image borders.
    """
    scale = have / want
    reach = max(scale, 1.0)
    centres = (np.arange(want) + 0.5) * scale
    indices = np.floor(centres - reach)[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weights = np.maximum(1 - np.abs(indices + 0.5 - centres[:, None]) / reach, 0)
    weights[(indices < 0) | (indices >= have)] = 0
    weights /= weights.sum(1, keepdims=True)
    # Taps with weight 0 point to a row with nonzero weight, so that no output waits for them.
    heaviest = np.take_along_axis(indices, weights.argmax(1)[:, None], 1)
    indices = np.where(weights > 0, indices, heaviest)
    return indices.astype(np.intp), weights.astype(np.float32)
