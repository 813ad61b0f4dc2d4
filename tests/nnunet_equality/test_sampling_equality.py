"""Folds, foreground oversampling, and patch positions, as in nnU-Net."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from swin_umamba.data import Case, PatchSampler, make_splits
from swin_umamba.data.sampling.volumes import ANNOTATED, find_positions

SHARE = 0.33  # nnU-Net's


def test_splits() -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    for count in (5, 12, 87, 200):
        names = sorted(f"case_{i}" for i in range(count))
        for ours, theirs in zip(make_splits(names), generate_crossval_split(names), strict=True):
            assert list(ours.train) == [str(name) for name in theirs["train"]]
            assert list(ours.val) == [str(name) for name in theirs["val"]]


def _loader(**facts: Any) -> Any:
    """Their loader without its dataset."""
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

    loader = object.__new__(nnUNetDataLoader)
    for name, value in facts.items():
        setattr(loader, name, value)
    return loader


def test_so_many_patches_of_a_batch_hold_foreground() -> None:
    case = Case("x", np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), np.int64))
    for size in range(1, 130):
        for share in (0.0, SHARE, 0.5, 1.0):
            loader = _loader(batch_size=size, oversample_foreground_percent=share)
            theirs = sum(loader._oversample_last_XX_percent(i) for i in range(size))
            ours = PatchSampler([case], patch_size=(8, 8), batch_size=size, foreground=share)
            assert ours.centred == theirs, (size, share)


def _mask(shape: tuple[int, int], ignored: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = np.zeros(shape, np.int64)
    mask[rng.integers(shape[0], size=3), rng.integers(shape[1], size=3)] = 1
    mask[0, -1] = mask[-1, 0] = 2
    if ignored:
        mask[rng.random(shape) < 0.5] = -1
        mask[0, -1] = 2
    return mask


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("shape", [(12, 15), (5, 20), (6, 7)])
def test_patches_start_at_the_same_places(
    shape: tuple[int, int], forced: bool, ignored: bool
) -> None:
    """By how often, over many draws."""
    patch, draws = (8, 6), 4000
    mask = _mask(shape, ignored)
    key = (-1, 0, 1, 2)
    places = {label: np.argwhere(mask[None, None] == label) for label in (1, 2)}
    if ignored:
        places[key] = np.argwhere(mask[None, None] >= 0)
    loader = _loader(
        need_to_pad=np.zeros(3, int),
        patch_size=(1, *patch),
        has_ignore=ignored,
        annotated_classes_key=key,
    )
    np.random.seed(0)  # noqa: NPY002 (theirs draws from it)
    theirs: Counter[tuple[int, ...]] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(draws):
            theirs[tuple(int(v) for v in loader.get_bbox((1, *shape), forced, places)[0])] += 1
    case = Case("x", np.zeros((1, *shape), np.float32), mask)
    sampler = PatchSampler([case], patch_size=patch, batch_size=1)
    rng = np.random.default_rng(0)
    (volume,) = sampler.volumes
    ours: Counter[tuple[int, ...]] = Counter()
    for _ in range(draws):
        index, corner = sampler._window(volume, rng, forced)
        ours[(index, *corner)] += 1
    assert set(ours) == set(theirs)
    for start, count in theirs.items():
        assert ours[start] == pytest.approx(count, abs=6 * np.sqrt(count + 1))


@pytest.mark.parametrize("regions", [None, ((1, 2), (2,))])
def test_positions(regions: tuple[tuple[int, ...], ...] | None) -> None:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    rng = np.random.default_rng(0)
    mask = rng.choice(4, (3, 300, 300), p=[0.4, 0.5, 0.0999, 0.0001]).astype(np.int16) - 1
    asked: list[Any] = [1, 2] if regions is None else list(regions)
    theirs = DefaultPreprocessor._sample_foreground_locations(
        mask[None], [*asked, [-1, 0, 1, 2][1:]]
    )
    ours = find_positions(list(mask), "x", regions=regions, annotated=True)
    counts = Counter(ours[:, 0].tolist())
    for number, found in enumerate(theirs.values(), 1):
        key = ANNOTATED if number == len(theirs) else number
        assert counts[key] == len(found)
    for key, index, place in ours[:: max(len(ours) // 500, 1)]:
        label = int(mask[index].ravel()[place])
        allowed = {ANNOTATED: (0, 1, 2), **dict(enumerate(asked, 1))}[int(key)]
        assert label in (allowed if isinstance(allowed, tuple) else (allowed,))
