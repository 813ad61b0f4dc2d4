"""Slices read row by row equal those of the whole image, with statistics measured in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_helpers import plan_of

from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare import pieces
from swin_umamba.data.prepare.slices import ArraySlices, NormalizedSlices

SHAPE = (5, 14, 11)
SCHEMES = ("zscore", "ct", "rescale_to_0_1", "rgb_to_0_1", "none", "zscore")


def _raw(seed: int = 0, dtype: str = "uint8") -> RawImage:
    """Noise in a box, zeros around it."""
    pixels = np.zeros((len(SCHEMES), *SHAPE), dtype)
    box = pixels[:, 1:4, 2:12, 3:9]
    box[...] = np.random.default_rng(seed).integers(1, 256, box.shape)
    return RawImage(pixels, (1, 1, 1), (Path("x.nii"),), None)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_rows_of_any_slices(axis: int, crop: bool) -> None:
    changes: dict[str, Any] = {"axis": axis, "normalization": SCHEMES, "crop_to_nonzero": crop}
    plan = plan_of(2, len(SCHEMES), mask_normalization=(True, *(False,) * 4, False), **changes)
    raw = _raw()
    whole = plan.preprocess(raw)
    slices = plan.slices(raw, plan.placement(raw))
    assert isinstance(slices, NormalizedSlices)
    assert slices.shape == whole.shape
    for of_them, expected in ((slices, whole), (slices.part(1, 99).part(1, 2), whole[2:3])):
        assert of_them.shape == expected.shape
        out = np.full((*expected.shape[:2], 2, expected.shape[3]), np.nan, np.float32)
        of_them.fill(out, 1)
        np.testing.assert_array_equal(out, expected[:, :, 1:3])
    kept = ArraySlices(whole).part(1, 3)
    assert kept.shape == whole[1:3].shape
    rows = np.empty_like(whole[1:3, :, :2])
    kept.fill(rows, 1)
    np.testing.assert_array_equal(rows, whole[1:3, :, 1:3])


def test_what_is_resampled_is_made_at_once() -> None:
    plan = plan_of(2, len(SCHEMES), spacing=(2.0, 2.0))
    raw = _raw()
    slices = plan.slices(raw, plan.placement(raw))
    assert isinstance(slices, ArraySlices)
    np.testing.assert_array_equal(slices.array, plan.preprocess(raw))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("axis", [0, 1])
def test_pieces_have_the_whole_image_s_statistics(
    monkeypatch: pytest.MonkeyPatch, axis: int, dtype: str, masked: bool
) -> None:
    channels = len(SCHEMES)
    plan = plan_of(
        2, channels, normalization=("zscore",) * channels, mask_normalization=(masked,) * channels
    )
    raw = _raw(dtype=dtype)
    if axis == 0:  # the longer one of slices and rows is divided
        raw = RawImage(raw.pixels.swapaxes(1, 2), raw.spacing, raw.paths, None)
    expected = plan.preprocess(raw)
    seen = []
    measured = pieces._pieces

    def spied(shape: Any) -> Any:
        seen.append(measured(shape))
        return seen[-1]

    monkeypatch.setattr(pieces, "AT_ONCE", 130)
    monkeypatch.setattr(pieces, "_pieces", spied)
    np.testing.assert_allclose(plan.preprocess(raw), expected, rtol=1e-6, atol=1e-6)
    assert min(map(len, seen)) > 5
    cover = np.zeros(raw.pixels.shape[1:], int)
    for piece in seen[0]:
        cover[piece] += 1
    assert (cover == 1).all()
