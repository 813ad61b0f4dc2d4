"""Intensities as the network sees them, by nnU-Net's schemes.

- zscore: mean 0 and deviation 1 of each channel of each image, or of each volume as a whole.
- ct: clip to the training foreground's percentiles 0.5 and 99.5, then its mean and deviation.
- rescale_to_0_1: each channel of each image from its least to its highest value.
- rgb_to_0_1: divide by 255.
- none: only to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.cropping import nonzero_mask
from swin_umamba.data.prepare.fingerprint import Intensity
from swin_umamba.errors import UserError

Scheme = Literal["zscore", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"]


def scheme_of(channel_name: str) -> Scheme:
    """The scheme that nnU-Net takes for a channel of that name, in any case of letters.

    CT, rescale_to_0_1 and rgb_to_0_1 have their own, noNorm is none, and all others, R, G and B
    among them, are z-scored.
    """
    named: dict[str, Scheme] = {
        **{"ct": "ct", "nonorm": "none"},
        **{"rescale_to_0_1": "rescale_to_0_1", "rgb_to_0_1": "rgb_to_0_1"},
    }
    return named.get(channel_name.casefold(), "zscore")


def normalize_image(
    raw: RawImage,
    schemes: Sequence[str],
    intensities: Sequence[Intensity],
    masked: Sequence[bool],
) -> npt.NDArray[np.float32]:
    """The pixels (C, Z, H, W) as float32, each channel by its scheme; a constant one becomes 0.

    masked: whether a z-scored channel's mean and deviation are of the image's part that is not
    zero (`cropping.nonzero_mask`); what lies outside of it then stays 0. Raises UserError, naming
    the file, for pixels above 255 where rgb_to_0_1 is asked for.
    """
    image = np.empty(raw.pixels.shape, np.float32)
    mask = nonzero_mask(raw.pixels) if any(masked) else None
    for channel, values, scheme, facts, inside in zip(
        image, raw.pixels, schemes, intensities, masked, strict=True
    ):
        if scheme == "zscore":
            _zscore(channel, values, mask if inside else None)
        elif scheme == "ct":
            np.clip(values, facts.low, facts.high, out=channel, casting="unsafe")
            channel -= facts.mean
            channel /= max(facts.std, 1e-8)
        elif scheme == "rescale_to_0_1":
            low = float(values.min())
            np.subtract(values, low, out=channel, dtype=np.float64, casting="unsafe")
            channel /= max(float(values.max()) - low, 1e-8)
        elif scheme == "rgb_to_0_1":
            if values.min() < 0 or values.max() > 255:
                raise UserError(
                    f"{raw.paths[0]} holds pixels from {values.min()} to {values.max()}, expected 0"
                    " to 255 (normalization rgb_to_0_1)"
                )
            np.divide(values, 255.0, out=channel, casting="unsafe")
        else:
            channel[...] = values
    return image


def _zscore(
    channel: npt.NDArray[np.float32],
    values: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_] | None,
) -> None:
    # Sums in float64: pixels of 16 bits lose digits in float32.
    known = values if mask is None or not mask.any() else values[mask]
    mean, std = known.mean(dtype=np.float64), known.std(dtype=np.float64)
    np.subtract(values, mean, out=channel, casting="unsafe")
    channel /= std if std > 0 else 1.0
    if mask is not None:
        channel[~mask] = 0
