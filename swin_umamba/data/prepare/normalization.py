"""Intensity normalization, by nnU-Net's schemes.

- zscore: zero mean and unit deviation per channel, over each image or whole volume.
- ct: clip to the training foreground's 0.5 and 99.5 percentiles, then subtract its mean and divide
by its deviation.
- rescale_to_0_1: each channel of each image from its minimum to its maximum.
- rgb_to_0_1: divide by 255.
- none: only convert to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.cropping import nonzero_mask
from swin_umamba.data.prepare.fingerprint import Intensity
from swin_umamba.data.prepare.pieces import Piece, each_piece
from swin_umamba.errors import UserError

_CACHED = 1 << 16  # float64 values that a core's cache holds beside others
CONSTANT = 1e-12
"""Maximum deviation of a channel, relative to its mean, that counts as float64 rounding."""

Scheme = Literal["zscore", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"]
_Rule = Callable[[npt.NDArray[Any], npt.NDArray[np.float32]], None]
"""Writes a channel's pixels, or a part of them, normalized."""


def scheme_of(channel_name: str) -> Scheme:
    """nnU-Net's scheme for a channel name, in any case of letters.

    CT, rescale_to_0_1 and rgb_to_0_1 have their own schemes, noNorm is none, and all other names,
    R, G and B included, are z-scored.
    """
    named: dict[str, Scheme] = {
        **{"ct": "ct", "nonorm": "none"},
        **{"rescale_to_0_1": "rescale_to_0_1", "rgb_to_0_1": "rgb_to_0_1"},
    }
    return named.get(channel_name.casefold(), "zscore")


class Normalization:
    """An image's pixels as float32, normalized per channel; a constant channel becomes 0.

    Statistics of the whole image are measured once; then any part of it can be written. masked: per
    channel, whether z-scoring uses only the nonzero part of the image (`cropping.nonzero_mask`);
    pixels outside of it then stay 0. Raises UserError, naming the file, for pixels above 255 with
    rgb_to_0_1.
    """

    def __init__(
        self,
        raw: RawImage,
        schemes: Sequence[str],
        intensities: Sequence[Intensity],
        masked: Sequence[bool],
    ) -> None:
        self.pixels = raw.pixels
        self._masked = [
            inside and scheme == "zscore" for inside, scheme in zip(masked, schemes, strict=True)
        ]
        self._mask = nonzero_mask(raw.pixels) if any(self._masked) else None
        self._rules = [
            _rule(scheme, values, facts, self._mask if inside else None, raw)
            for values, scheme, facts, inside in zip(
                raw.pixels, schemes, intensities, self._masked, strict=True
            )
        ]

    def fill(self, out: npt.NDArray[np.float32], part: tuple[slice, slice, slice]) -> None:
        """Write a part (z, y, x) of all channels to `out` (C, ...)."""
        for channel, values, rule, inside in zip(
            out, self.pixels, self._rules, self._masked, strict=True
        ):
            rule(values[part], channel)
            if inside and self._mask is not None:
                channel[~self._mask[part]] = 0


def _rule(
    scheme: str,
    values: npt.NDArray[Any],
    facts: Intensity,
    mask: npt.NDArray[np.bool_] | None,
    raw: RawImage,
) -> _Rule:
    """The function that writes a channel's normalized pixels. mask: pixels to measure; None for
    all."""
    if scheme == "zscore":
        mean, std = _mean_and_std(values, mask if mask is not None and mask.any() else None)
        constant = std <= CONSTANT * abs(mean)
        return partial(_shifted_and_scaled, mean, np.float64(1) if constant else std)
    if scheme == "ct":
        return partial(_clipped, facts)
    if scheme == "rescale_to_0_1":
        low, high = float(values.min()), float(values.max())
        return partial(_shifted_and_scaled, low, max(high - low, 1e-8))
    if scheme == "rgb_to_0_1":
        if values.min() < 0 or values.max() > 255:
            raise UserError(
                f"{raw.paths[0]} holds pixels from {values.min()} to {values.max()}, expected 0"
                " to 255 (normalization rgb_to_0_1)"
            )
        return _from_bytes
    return _as_they_are


def _shifted_and_scaled(
    offset: float, scale: float, values: npt.NDArray[Any], out: npt.NDArray[np.float32]
) -> None:
    np.subtract(values, offset, out=out, dtype=np.float64, casting="unsafe")
    out /= scale


def _clipped(facts: Intensity, values: npt.NDArray[Any], out: npt.NDArray[np.float32]) -> None:
    np.clip(values, facts.low, facts.high, out=out, casting="unsafe")
    out -= facts.mean
    out /= max(facts.std, 1e-8)


def _from_bytes(values: npt.NDArray[Any], out: npt.NDArray[np.float32]) -> None:
    np.divide(values, 255.0, out=out, casting="unsafe")


def _as_they_are(values: npt.NDArray[Any], out: npt.NDArray[np.float32]) -> None:
    out[...] = values


def _mean_and_std(
    values: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None
) -> tuple[np.float64, np.float64]:
    """Mean and deviation of an image (Z, H, W), or of its part in the mask, in bounded memory."""

    def known(piece: Piece) -> npt.NDArray[Any]:
        return values[piece] if mask is None else values[piece][mask[piece]]

    def summed(piece: Piece) -> np.float64:
        # In float64: 16-bit pixels would lose digits in float32.
        total: np.float64 = known(piece).sum(dtype=np.float64)
        return total

    def squared(piece: Piece) -> np.float64:
        part = known(piece)
        rows = part.reshape(-1, max(part.shape[-1], 1))
        at_once = max(_CACHED // rows.shape[1], 1)
        scratch = np.empty((min(at_once, len(rows)), rows.shape[1]))
        total = np.float64(0)
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            distances = np.subtract(some, mean, out=scratch[: len(some)])
            total += np.square(distances, out=distances).sum()
        return total

    count = values.size if mask is None else int(np.count_nonzero(mask))
    mean = np.float64(sum(each_piece(summed, values.shape)) / count)
    return mean, np.sqrt(np.float64(sum(each_piece(squared, values.shape)) / count))
