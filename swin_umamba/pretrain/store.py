"""Tiles for batches: in the GPU's memory, or in the host's with a loading thread."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.pretrain.tiles import Indices

_SHARE = 0.25  # fraction of the GPU's memory that tiles may use


def moved(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array on a device, without waiting for pending work there."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def fits(pixels: npt.NDArray[Any], device: torch.device) -> bool:
    """Whether the tiles are small enough to stay in a GPU's memory during training."""
    if device.type != "cuda":
        return False
    _, whole = torch.cuda.mem_get_info(device)
    return pixels.nbytes <= _SHARE * whole


class Store:
    """Images by index, on a device.

    resident: keep all of them there. Otherwise a thread gathers requested images in pinned memory;
    `ask` for a batch before the previous one is used, then `take` it.
    """

    def __init__(self, pixels: npt.NDArray[Any], device: torch.device, *, resident: bool) -> None:
        self.device = device
        self._pixels = pixels
        self._all = _on(device, pixels) if resident else None
        self._pool = None if resident else ThreadPoolExecutor(1)
        self._asked: dict[bytes, Future[Tensor]] = {}

    def ask(self, indices: Indices) -> None:
        """Request a batch."""
        if self._pool is not None:
            self._asked[indices.tobytes()] = self._pool.submit(self._gathered, indices)

    def take(self, indices: Indices) -> tuple[Tensor, float]:
        """The batch, and the seconds of waiting for it."""
        if self._all is not None:
            return self._all[moved(indices, self.device)], 0.0
        began = time.perf_counter()
        asked = self._asked.pop(indices.tobytes(), None)
        gathered = self._gathered(indices) if asked is None else asked.result()
        waited = time.perf_counter() - began
        return gathered.to(self.device, non_blocking=True), waited

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _gathered(self, indices: Indices) -> Tensor:
        # In file order, since the file may be on a disk.
        order = np.argsort(indices)
        gathered = np.empty((len(indices), *self._pixels.shape[1:]), self._pixels.dtype)
        gathered[order] = self._pixels[indices[order]]
        tensor = torch.from_numpy(gathered)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


def _on(device: torch.device, pixels: npt.NDArray[Any]) -> Tensor:
    whole = torch.empty(
        pixels.shape, dtype=torch.from_numpy(pixels[:0].copy()).dtype, device=device
    )
    step = max((256 << 20) // max(pixels[:1].nbytes, 1), 1)
    for first in range(0, len(pixels), step):
        whole[first : first + step] = torch.from_numpy(np.array(pixels[first : first + step]))
    return whole
