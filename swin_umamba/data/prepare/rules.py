"""nnU-Net's rules by which a fingerprint becomes a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swin_umamba.data.prepare.fingerprint import Fingerprint

# Patches are as large as the median slice, within these sides, and rounded up to a multiple.
MIN_SIDE, MAX_SIDE, MULTIPLE = 64, 512, 32
# Spacings that differ by less are taken for the same: headers round.
SAME_SPACING = 0.01
MOST_RESAMPLED = 2**32  # float32 values of an image after resampling: 16 GiB
# Where the crop leaves less of the median image, statistics are of what is not zero alone.
MASKED_BELOW = 3 / 4


def slicing_axis(fingerprint: Fingerprint) -> int:
    """The axis of the coarsest median spacing, the first of (Z, H, W) where none is coarser by
    more than 1 %; 2-D images have only that."""
    spacing = np.median(fingerprint.spacings, axis=0)
    volumes = any(shape[0] > 1 for shape in fingerprint.shapes)
    coarsest = int(spacing.argmax())
    return coarsest if volumes and spacing[coarsest] > (1 + SAME_SPACING) * spacing[0] else 0


def median_slice(fingerprint: Fingerprint, axis: int) -> tuple[float, float]:
    """The height and width of the median slice after the crop and at the median spacing."""
    scaled = np.array(fingerprint.cropped) * np.array(fingerprint.spacings)
    sizes = np.round(np.median(scaled / np.median(fingerprint.spacings, axis=0), axis=0))
    height, width = (float(n) for i, n in enumerate(sizes) if i != axis)
    return height, width


def patch_size_for(size: tuple[float, float]) -> tuple[int, int]:
    """The size of a slice, each side rounded up to a multiple of 32 within 64 and 512."""
    height, width = (
        int(np.clip(-(-side // MULTIPLE) * MULTIPLE, MIN_SIDE, MAX_SIDE)) for side in size
    )
    return height, width


def masked_channels(fingerprint: Fingerprint, schemes: Sequence[str]) -> tuple[bool, ...]:
    """Whether each channel's statistics are of what is not zero alone: of z-scored ones, where
    less than three quarters of the median image are left after the crop."""
    small = fingerprint.relative_size < MASKED_BELOW
    return tuple(small and scheme == "zscore" for scheme in schemes)
