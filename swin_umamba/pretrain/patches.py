"""Patches of a segmentation dataset's images, normalized as for training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.prepare.prepared import prepare_dataset
from swin_umamba.data.prepare.work import OnProgress
from swin_umamba.errors import UserError
from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.tiles import Tiles, digest_of


def patches_of_dataset(
    folder: Path, config: PretrainConfig, *, threads: int = 1, on_progress: OnProgress | None = None
) -> Tiles:
    """Overlapping squares that cover the images of a fold's training cases.

    Images of its validation cases are held out, and masks are not used.
    """
    found = prepare_dataset(folder, fold=config.fold, threads=threads, on_progress=on_progress)
    channels = found.plan.in_channels
    if config.in_channels not in (None, channels):
        raise UserError(f"in_channels: got {config.in_channels}, the dataset has {channels}")
    validated = set(found.split.val) - set(found.split.train)
    parts, held_out = [], []
    for case in found.cases:
        squares = _squares(case.image, config.stored_side)
        parts.append(squares)
        held_out += [case.volume in validated] * len(squares)
    pixels = np.concatenate(parts)
    flags = np.array(held_out)
    return Tiles(
        found.plan.dataset, pixels, None, (), digest_of(pixels), flags if flags.any() else None
    )


def _squares(image: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.half]:
    """Squares of an image (C, H, W), at most half a side apart; small images are mirror-padded."""
    missing = [max(side - n, 0) for n in image.shape[1:]]
    padded = image
    while any(missing):
        # numpy mirrors at most once at a time.
        now = [
            min(m, n - 1) if n > 1 else m for m, n in zip(missing, padded.shape[1:], strict=True)
        ]
        mode: Any = "reflect" if min(padded.shape[1:]) > 1 else "edge"
        padded = np.pad(padded, ((0, 0), (0, now[0]), (0, now[1])), mode)
        missing = [m - n for m, n in zip(missing, now, strict=True)]
    tops, lefts = (_starts(n, side) for n in padded.shape[1:])
    squares = [padded[:, t : t + side, l : l + side] for t in tops for l in lefts]  # noqa: E741
    return np.stack(squares).clip(-65504, 65504).astype(np.half)


def _starts(length: int, side: int) -> list[int]:
    count = -(-2 * (length - side) // side) + 1
    return [round(i * (length - side) / max(count - 1, 1)) for i in range(count)]
