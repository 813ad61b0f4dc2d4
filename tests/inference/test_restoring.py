"""Resampling band by band equals resampling the whole image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from swin_umamba.data.prepare.resampling import resample_image
from swin_umamba.inference.restoring import RowResampler

SIDES = st.integers(1, 80)


@settings(deadline=None, max_examples=100)
@given(have=st.tuples(SIDES, SIDES), want=st.tuples(SIDES, SIDES), seed=st.integers(0, 1000))
def test_bands_give_the_whole(have: tuple[int, int], want: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((2, 3, *have), np.float32)
    resampler, start, parts = RowResampler(have, want), 0, []
    while start < have[0]:
        rows = int(rng.integers(1, 20))
        assert resampler.done == sum(part.shape[-2] for part in parts)
        parts.append(resampler.push(image[..., start : start + rows, :]))
        start += rows
    expected = resample_image(image, want, order=1)
    np.testing.assert_allclose(np.concatenate(parts, -2), expected, rtol=1e-4, atol=1e-5)


def test_no_more_rows_are_held_than_the_next_ones_need() -> None:
    resampler = RowResampler((1000, 8), (2000, 8))
    for _ in range(100):
        resampler.push(np.ones((1, 10, 8), np.float32))
        assert resampler.held is not None
        assert resampler.held.shape[-2] <= 2
    assert resampler.done == 2000


def test_nothing_to_resample() -> None:
    image = np.random.default_rng(0).random((1, 5, 1), np.float32)
    found = RowResampler((5, 1), (5, 1)).push(image)
    np.testing.assert_array_equal(found, image)
