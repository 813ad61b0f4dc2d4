"""Sliding windows: the logits of images of any size, in bands of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from swin_umamba.data.prepare.slices import ArraySlices, Slices
from swin_umamba.inference.strips import strips

Network = Callable[[Tensor], Tensor]
"""Logits (B, K, h, w) of windows (B, C, h, w) float32; both may be on any device."""
Place = tuple[int, int, int]
"""Image, row and column of a window."""

ON_CPU = 4
ON_GPU = 16 * 320 * 320  # pixels


def windows_at_once(size: tuple[int, int], device: torch.device) -> int:
    """How many windows of a size a device takes at a time: on a GPU enough to keep it busy."""
    return ON_CPU if device.type != "cuda" else max(ON_GPU // (size[0] * size[1]), 1)


@dataclass(frozen=True)
class Windows:
    """How images are cut into windows.

    size: height and width of a window; smaller images are zero-padded. overlap: fraction of a
    window shared with the next, 0 to below 1; there, logits are averaged with Gaussian weights.
    batch_size: windows per batch.
    """

    size: tuple[int, int]
    overlap: float = 0.5
    batch_size: int = 4

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"patch_size: got {self.size}, expected two sizes of at least 1")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap: got {self.overlap}, expected at least 0 and below 1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: got {self.batch_size}, expected at least 1")

    def starts(self, length: int, axis: int) -> list[int]:
        """Where windows start along an axis of an image that is at least as long as one.

        At multiples of a stride; the last window ends with the image.
        """
        size = self.size[axis]
        stride = max(int(size * (1 - self.overlap)), 1)
        return [*range(0, length - size, stride), length - size]


def logits_in_bands(
    network: Network,
    images: npt.NDArray[np.float32] | Slices,
    windows: Windows,
    device: torch.device,
) -> Iterator[tuple[int, Tensor]]:
    """The logits of images of one size from top to bottom: first row and logits of each band.

    images: (N, C, H, W) float32, whose windows share batches. device: where windows are cut and
    logits averaged. The bands are (N, K, rows, W) float32 on `device`, one after another. Every
    window is computed once; held at a time are the logits of one row of windows, or of as many rows
    as fill a batch, and the images' rows that these need. Nothing waits for a GPU.
    """
    slices = ArraySlices(images) if isinstance(images, np.ndarray) else images
    count, _, height, width = slices.shape
    # (before, after) of the rows and of the columns.
    (top, bottom), (left, right) = (
        _padding(length, size) for length, size in zip((height, width), windows.size, strict=True)
    )
    rows = windows.starts(height + top + bottom, 0)
    columns = windows.starts(width + left + right, 1)
    tall, wide = windows.size
    held = _Held(importance(windows.size, device))
    at_once = max(windows.batch_size // (count * len(columns)), 1)
    groups = [rows[first : first + at_once] for first in range(0, len(rows), at_once)]
    # Only a single row of windows is padded above and below.
    spans = [(group[0], min(group[-1] + tall, height)) for group in groups]
    emitted = 0
    for group, read in zip(groups, strips(slices, spans, device), strict=True):
        begin = group[0]
        if begin > emitted:
            yield emitted, held.pop(begin - emitted)[..., left : left + width]
            emitted = begin
        strip = F.pad(read, (left, right, top, bottom))
        places = [
            (n, row - begin, column) for row in group for n in range(count) for column in columns
        ]
        for batch in _batches(places, windows.batch_size):
            cut = [strip[n, :, y : y + tall, x : x + wide] for n, y, x in batch]
            held.add(batch, network(torch.stack(cut)).to(device), strip.shape)
    rest = held.pop(height + top + bottom - emitted)
    yield emitted, rest[:, :, top : top + height, left : left + width]


def _batches(places: Sequence[Place], most: int) -> Iterator[Sequence[Place]]:
    """As few batches as possible, of nearly equal sizes: a small rest would leave a GPU idle."""
    number = -(-len(places) // most)
    bounds = [len(places) * index // number for index in range(number + 1)]
    for first, last in pairwise(bounds):
        yield places[first:last]


def importance(size: tuple[int, int], device: torch.device) -> Tensor:
    """The weights (h, w) float32 of a window's logits: a Gaussian whose deviation is an eighth of
    each side, at least 0.001.

    MONAI's compute_importance_map, without the seconds that every process takes to import MONAI.
    """
    rows, columns = (
        torch.exp(
            (torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2) ** 2
            / (-2 * (n / 8) ** 2)
        )
        for n in size
    )
    return (rows[:, None] * columns).clamp_(min=1e-3)


def _padding(length: int, size: int) -> tuple[int, int]:
    lacking = max(size - length, 0)
    return lacking // 2, lacking - lacking // 2


class _Held:
    """Running sums of weighted logits, and of weights, for rows that later windows may add to."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights  # of a window, (h, w)
        self.sums: Tensor | None = None  # (N, K, rows, W)
        self.totals: Tensor | None = None  # (rows, W)

    def add(self, places: Sequence[Place], logits: Tensor, strip: torch.Size) -> None:
        """Add windows at (image, row, column) of a strip (N, C, rows, W)."""
        self._reserve(strip[0], logits.shape[1], strip[2], strip[3])
        assert self.sums is not None
        assert self.totals is not None
        tall, wide = self.weights.shape
        weighted = logits.float() * self.weights
        for (n, y, x), window in zip(places, weighted, strict=True):
            self.sums[n, :, y : y + tall, x : x + wide] += window
            if n == 0:
                self.totals[y : y + tall, x : x + wide] += self.weights

    def pop(self, rows: int) -> Tensor:
        """The mean logits (N, K, rows, W) of the first rows, which are then removed."""
        assert self.sums is not None
        assert self.totals is not None
        found = self.sums[:, :, :rows] / self.totals[:rows]
        self.sums, self.totals = self.sums[:, :, rows:].clone(), self.totals[rows:].clone()
        return found

    def _reserve(self, images: int, classes: int, rows: int, columns: int) -> None:
        if self.sums is None or self.totals is None:
            self.sums = self.weights.new_zeros((images, classes, rows, columns))
            self.totals = self.weights.new_zeros((rows, columns))
        elif (lacking := rows - self.sums.shape[2]) > 0:
            self.sums = F.pad(self.sums, (0, 0, 0, lacking))
            self.totals = F.pad(self.totals, (0, 0, 0, lacking))
