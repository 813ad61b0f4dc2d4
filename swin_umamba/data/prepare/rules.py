"""nnU-Net's rules that turn a fingerprint into a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swin_umamba.data.prepare.fingerprint import Fingerprint

# Patch sides equal the median slice's, within these limits, rounded up to a multiple.
MIN_SIDE, MAX_SIDE, MULTIPLE = 64, 512, 32
# Spacings that differ by less are considered equal: headers round.
SAME_SPACING = 0.01
MOST_RESAMPLED = 2**32  # maximum float32 values of a resampled image: 16 GiB
# If cropping leaves less of the median image, statistics use nonzero pixels only.
MASKED_BELOW = 3 / 4


def slicing_axis(fingerprint: Fingerprint) -> int:
    """The axis with the coarsest median spacing, the first of (Z, H, W) unless another is coarser
    by more than 1 %; 2-D images have only that one."""
    spacing = np.median(fingerprint.spacings, axis=0)
    volumes = any(shape[0] > 1 for shape in fingerprint.shapes)
    coarsest = int(spacing.argmax())
    return coarsest if volumes and spacing[coarsest] > (1 + SAME_SPACING) * spacing[0] else 0


def median_slice(fingerprint: Fingerprint, axis: int) -> tuple[float, float]:
    """Height and width of the median slice, after cropping, at the median spacing."""
    scaled = np.array(fingerprint.cropped) * np.array(fingerprint.spacings)
    sizes = np.round(np.median(scaled / np.median(fingerprint.spacings, axis=0), axis=0))
    height, width = (float(n) for i, n in enumerate(sizes) if i != axis)
    return height, width


def patch_size_for(size: tuple[float, float]) -> tuple[int, int]:
    """The slice size, each side rounded up to a multiple of 32 between 64 and 512."""
    height, width = (
        int(np.clip(-(-side // MULTIPLE) * MULTIPLE, MIN_SIDE, MAX_SIDE)) for side in size
    )
    return height, width


def masked_channels(fingerprint: Fingerprint, schemes: Sequence[str]) -> tuple[bool, ...]:
    """Whether each channel's statistics use nonzero pixels only: for z-scored channels, if less
    than three quarters of the median image remains after cropping."""
    small = fingerprint.relative_size < MASKED_BELOW
    return tuple(small and scheme == "zscore" for scheme in schemes)
