"""Resampling, compared with explicit weighted sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from predict_helpers import plan_of

from swin_umamba.data import RawImage
from swin_umamba.data.prepare.resampling import resample_image, resample_labels

SIDES = st.integers(1, 9)


def _kernel(order: int, x: np.ndarray) -> np.ndarray:
    """A triangle, or Keys' cubic with a = -1/2."""
    x = np.abs(x)
    if order == 1:
        return np.maximum(1 - x, 0)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _weights(have: int, want: int, order: int) -> np.ndarray:
    """(want, have): by pixel centers, wider when downsampling, truncated at the borders."""
    scale = have / want
    apart = np.arange(have) + 0.5 - ((np.arange(want) + 0.5) * scale)[:, None]
    weights = _kernel(order, apart / max(scale, 1.0))
    return weights / weights.sum(1, keepdims=True)


@settings(deadline=None, max_examples=200)
@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    order=st.sampled_from([1, 3]),
)
def test_resampling_by_plain_sums(
    shape: tuple[int, int, int], size: tuple[int, int], order: int
) -> None:
    """Down to a single row or column, where torch 2.13 mixes up rows."""
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    rows, columns = (_weights(n, m, order) for n, m in zip(shape[1:], size, strict=True))
    found = resample_image(image, size, order=order)
    np.testing.assert_allclose(found, rows @ image @ columns.T, atol=1e-5)


def test_a_single_column_comes_back() -> None:
    pixels = np.random.default_rng(0).random((1, 1, 8, 1))
    raw = RawImage(pixels, (1.0, 1.0, 1.0), (Path("x.png"),), None)
    plan = plan_of(2, spacing=(0.5, 1.0))
    rows = _weights(8, 16, 3)
    np.testing.assert_allclose(plan.preprocess(raw)[0, 0], rows @ raw.pixels[0, 0], atol=1e-5)
    slices = np.random.default_rng(1).random((1, 2, 16, 1)).astype(np.float32)
    back = plan.restore(slices, raw)
    np.testing.assert_allclose(back[:, 0], _weights(16, 8, 1) @ slices[0], atol=1e-5)


def test_resampling_by_whole_factors() -> None:
    labels = np.arange(6).reshape(1, 2, 3)
    doubled = resample_labels(labels, (4, 6))
    np.testing.assert_array_equal(doubled, labels.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(resample_labels(doubled, (2, 3)), labels)
    constant = resample_image(np.full((1, 1, 5, 7), 3.0, np.float32), (9, 4))
    np.testing.assert_allclose(constant, 3.0, rtol=1e-6)
