"""Images of one size in one array: the input of a pretraining."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.errors import UserError

_SAMPLED = 20_000  # number of images used for mean and deviation

Indices = npt.NDArray[np.int64]


def digest_of(*arrays: npt.NDArray[Any]) -> str:
    """A digest of the content of arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Tiles:
    """Images (N, C, S, S): uint8, or float16 if already normalized.

    name: of their source. labels: the class of each; None if images have none. classes: their
    names. digest: of pixels and labels, or of the files they are read from. held_out: the images
    that the source itself reserves for scoring, if any.
    """

    name: str
    pixels: npt.NDArray[Any]
    labels: Indices | None
    classes: tuple[str, ...]
    digest: str
    held_out: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) != 4 or shape[2] != shape[3] or self.pixels.dtype not in (np.uint8, np.half):
            raise ValueError(
                f"pixels: got {self.pixels.dtype} {shape}, expected uint8 or float16 (N, C, S, S)"
            )
        if self.labels is not None and not (
            self.labels.shape == shape[:1]
            and self.labels.min(initial=0) >= 0
            and self.labels.max(initial=0) < len(self.classes)
        ):
            raise ValueError(f"labels: expected {shape[0]}, 0 to {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[1])

    def to_json(self) -> str:
        """Everything but pixels and labels, for display and for resuming."""
        facts = {
            "name": self.name,
            "digest": self.digest,
            "images": len(self),
            "channels": self.channels,
            "side": int(self.pixels.shape[2]),
            "classes": list(self.classes),
        }
        return json.dumps(facts, indent=2) + "\n"

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel, in the pixels' unit; 0 and 1 if normalized."""
        if self.pixels.dtype != np.uint8:
            return (0.0,) * self.channels, (1.0,) * self.channels
        sample = self.pixels[:: -(-len(self) // _SAMPLED)]
        levels = np.arange(256, dtype=np.float64)
        means, deviations = [], []
        for channel in range(self.channels):
            counts = np.bincount(sample[:, channel].ravel(), minlength=256) / (
                sample[:, channel].size
            )
            mean = float(counts @ levels)
            means.append(mean)
            deviations.append(max(float(counts @ (levels - mean) ** 2) ** 0.5, 1e-3))
        return tuple(means), tuple(deviations)

    def split(self, share: float, seed: int) -> tuple[Indices, Indices]:
        """Indices for training and scoring: the source's own split, or a random fraction held out.

        Raises UserError if no image is left for training.
        """
        if self.held_out is not None:
            train, held = np.flatnonzero(~self.held_out), np.flatnonzero(self.held_out)
        else:
            order = np.random.default_rng((seed, 1)).permutation(len(self))
            count = round(share * len(self))
            held, train = np.sort(order[:count]), np.sort(order[count:])
        if not len(train):
            raise UserError(f"{self.name} has no images to train on ({len(self)} in all)")
        return train, held
