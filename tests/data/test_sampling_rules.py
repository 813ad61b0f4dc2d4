"""Patch positions: nnU-Net's rules for foreground, ignored pixels, regions and borders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from swin_umamba.data import Augmentation, Case, PatchSampler
from swin_umamba.data.sampling.volumes import ANNOTATED, find_positions


def _case(mask: np.ndarray) -> Case:
    """The image counts the pixels from 1, so that 0 marks pixels outside of it."""
    image = np.arange(1, mask.size + 1, dtype=np.float32).reshape(1, *mask.shape)
    return Case("case", image, mask.astype(np.int64))


def _corners(sampler: PatchSampler, width: int, batches: int) -> Counter[tuple[int, int]]:
    """How often patches start at each position, from the numbers in them."""
    found: Counter[tuple[int, int]] = Counter()
    for index in range(batches):
        for patch in sampler.batch(index)[0].numpy()[:, 0]:
            inside = np.argwhere(patch > 0)[0]
            row, column = divmod(int(patch[tuple(inside)]) - 1, width)
            found[row - int(inside[0]), column - int(inside[1])] += 1
    return found


@pytest.mark.parametrize(
    ("batch_size", "share", "centred"),
    [
        *((1, 0.33, 0), (2, 0.33, 1), (3, 0.33, 1), (4, 0.33, 1), (5, 0.33, 2), (12, 1 / 3, 4)),
        *((30, 0.33, 10), (49, 0.33, 16), (12, 0.0, 0), (12, 1.0, 12), (1, 0.6, 1)),
    ],
)
def test_so_many_patches_are_centred_on_foreground(
    batch_size: int, share: float, centred: int
) -> None:
    """nnU-Net: those at a position in the batch not below round(batch_size * (1 - share))."""
    mask = np.zeros((40, 40))
    mask[39, 0] = 1
    sampler = PatchSampler(
        [_case(mask)], patch_size=(4, 4), batch_size=batch_size, foreground=share, augment=False
    )
    for index in range(8):
        holds = sampler.batch(index)[1].flatten(1).any(1)
        assert bool(holds[batch_size - centred :].all())
    # By chance one in 37 * 37 patches holds that pixel.
    chance = sum(int(sampler.batch(i)[1].flatten(1).any(1).sum()) - centred for i in range(8))
    assert chance <= 1


def test_centred_patches_keep_to_the_upper_left_border_alone() -> None:
    for place, start in (((0, 0), (0, 0)), ((1, 9), (0, 7)), ((9, 5), (7, 3)), ((5, 0), (3, 0))):
        mask = np.zeros((10, 10))
        mask[place] = 1
        sampler = PatchSampler(
            [_case(mask)], patch_size=(5, 4), batch_size=2, foreground=1.0, augment=False
        )
        assert set(_corners(sampler, 10, 3)) == {start}


def test_other_patches_lie_anywhere_within_the_image() -> None:
    sampler = PatchSampler(
        [_case(np.zeros((6, 7)))], patch_size=(5, 4), batch_size=8, foreground=0.0, augment=False
    )
    found = _corners(sampler, 7, 100)
    assert set(found) == {(row, column) for row in range(2) for column in range(4)}
    assert min(found.values()) > 50


def test_an_image_that_is_smaller_lies_in_the_middle() -> None:
    sampler = PatchSampler(
        [_case(np.zeros((5, 6)))], patch_size=(8, 8), batch_size=8, foreground=0.0, augment=False
    )
    assert set(_corners(sampler, 6, 5)) == {(-2, -1), (-1, -1)}


def test_where_pixels_are_ignored_patches_are_centred_on_truth() -> None:
    mask = np.full((40, 40), -1)
    mask[20, 10:30] = 0
    mask[20, 29] = 2
    sampler = PatchSampler(
        [_case(mask)], patch_size=(4, 4), batch_size=3, foreground=0.33, augment=False
    )
    seen = Counter[bool]()
    for index in range(60):
        centres = sampler.batch(index)[1][:, 2, 2]
        assert (centres >= 0).all()
        assert centres[2] == 2
        seen.update((centres[:2] == 2).tolist())
    assert seen[False] > 5 * seen[True] > 0
    # Without foreground, a centered patch falls back to any annotated pixel.
    bare = PatchSampler(
        [_case(np.minimum(mask, 0))], patch_size=(4, 4), batch_size=2, foreground=1.0, augment=False
    )
    assert (bare.batch(0)[1][:, 2, 2] == 0).all()


def test_everything_ignored_still_gives_patches() -> None:
    sampler = PatchSampler([_case(np.full((9, 9), -1))], patch_size=(4, 4), batch_size=2)
    assert sampler.batch(0)[1].shape == (2, 4, 4)


def test_positions_are_of_every_class_with_even_counts() -> None:
    mask = np.zeros((300, 300), np.int16)
    mask[:150] = 1
    mask[290:, :5] = 3
    found = find_positions([mask, np.zeros_like(mask)], "x")
    counts = Counter(found[:, 0].tolist())
    assert counts == {1: 10_000, 3: 50}
    assert (np.diff(found[:, 0]) >= 0).all()
    assert len(np.unique(found, axis=0)) == len(found)
    for key, index, place in found:
        assert index == 0
        assert mask.ravel()[place] == key


def test_positions_are_at_least_one_percent() -> None:
    found = find_positions([np.ones((1200, 1000), np.int16)], "x")
    assert len(found) == 12_000


def test_positions_of_regions_and_of_all_pixels_with_truth() -> None:
    mask = np.array([[0, 1, 2, 3, -1]])
    found = find_positions([mask], "x", regions=((1, 2, 3), (2, 3), (3,)), annotated=True)
    by_key = {key: set(found[found[:, 0] == key, 2].tolist()) for key in range(4)}
    assert by_key == {ANNOTATED: {0, 1, 2, 3}, 1: {1, 2, 3}, 2: {2, 3}, 3: {3}}


class _Masked:
    """A volume of one slice, 0 in its right half."""

    slices, channels = 1, {2}

    def __init__(self, masked: tuple[int, ...]) -> None:
        self.masked = masked
        self._image = np.ones((2, 16, 16), np.float32)
        self._image[:, :, 8:] = 0

    def image(self, index: int) -> np.ndarray:
        return self._image

    def mask(self, index: int) -> np.ndarray:
        return np.zeros((16, 16), np.int16)

    def positions(self) -> np.ndarray:
        return np.empty((0, 3), np.int32)


@pytest.mark.parametrize("masked", [(), (1,), (0, 1)])
def test_masked_channels_stay_zero_outside(masked: tuple[int, ...]) -> None:
    noisy = Augmentation(
        p_rotation=0, p_scaling=0, p_blur=0, p_low_resolution=0, p_mirror=0, p_noise=1, p_gamma=0
    )
    case = _case(np.zeros((16, 16)))
    sampler = PatchSampler([case], patch_size=(16, 16), batch_size=1, augment=noisy)
    sampler.volumes = [_Masked(masked)]
    (image,) = sampler.batch(0)[0]
    for channel in range(2):
        assert bool(image[channel, :, 8:].any()) == (channel not in masked)
        assert image[channel, :, :8].std() > 0
