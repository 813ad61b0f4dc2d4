"""One image with its ground truth, ready for training or scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.prepare.normalization import CONSTANT


@dataclass(frozen=True)
class Case:
    """A normalized image (C, H, W) float32, its class indices (H, W) int64, and a name.

    The mask is -1 where unannotated. volume: name of the volume that this slice belongs to, by
    default its own name.
    """

    name: str
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.int64]
    volume: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.dtype != np.float32:
            raise ValueError(
                f"{self.name}: image is {self.image.dtype} {self.image.shape}, expected float32"
                " (C, H, W)"
            )
        if self.mask.shape != self.image.shape[1:] or self.mask.dtype != np.int64:
            raise ValueError(
                f"{self.name}: mask is {self.mask.dtype} {self.mask.shape}, expected int64"
                f" {self.image.shape[1:]} as the image"
            )
        if not self.volume:
            object.__setattr__(self, "volume", self.name)


def normalize(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Normalize (C, H, W) of any real dtype to float32 with mean 0 and deviation 1 per channel.

    A constant channel becomes 0.
    """
    values = image.astype(np.float64)
    mean, deviation = (f(values, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    constant = deviation <= CONSTANT * np.abs(mean)
    normalized = (values - mean) / np.where(constant, 1.0, deviation)
    return np.asarray(normalized, np.float32)
