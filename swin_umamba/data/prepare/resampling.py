"""Resample slices to another grid over the same area."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F


def resample_image(
    slices: npt.NDArray[Any], size: tuple[int, int], *, order: int = 3
) -> npt.NDArray[np.float32]:
    """(Z, C, h, w) to (Z, C, *size) float32, bicubic (order 3) or bilinear (1), slice by slice.

    Smoothed first when downsampling, unlike nnU-Net's spline, which aliases.
    """
    if slices.shape[-2:] == size:
        return np.ascontiguousarray(slices, dtype=np.float32)
    if size[1] == 1 < size[0]:  # torch (2.11 to 2.14) mixes up the rows of single-column images
        turned = resample_image(np.swapaxes(slices, -1, -2), (1, size[0]), order=order)
        return np.swapaxes(turned, -1, -2)
    resized = np.empty((*slices.shape[:2], *size), np.float32)
    mode = {1: "bilinear", 3: "bicubic"}[order]
    for target, part in zip(resized, slices, strict=True):
        source = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))[None]
        target[...] = F.interpolate(source, size, mode=mode, antialias=True)[0].numpy()
    return resized


def resample_labels(slices: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """(Z, h, w) to (Z, *size) by nearest neighbor (pixel centers); keeps the dtype."""
    if slices.shape[-2:] == size:
        return np.ascontiguousarray(slices)
    rows, columns = (_nearest(n, m) for n, m in zip(slices.shape[-2:], size, strict=True))
    return slices[:, rows[:, None], columns[None, :]]


def _nearest(have: int, want: int) -> npt.NDArray[np.intp]:
    return np.minimum(((np.arange(want) + 0.5) * have / want).astype(np.intp), have - 1)
