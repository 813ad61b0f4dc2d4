"""Cropping, rotating and varying patches, and which batch comes when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from monai.transforms.intensity.array import AdjustContrast
from torch import Tensor
from torch.nn import functional as F

from swin_umamba.data import Augmentation, Case, PatchSampler
from swin_umamba.data.sampling.augmentation import cut, draw_matrix, mirror, vary

NEVER = {f.name: 0.0 for f in fields(Augmentation) if f.name in Augmentation.__annotations__}
NEVER = {name: value for name, value in NEVER.items() if name.startswith("p_")}


def _only(**changes: float) -> Augmentation:
    """No augmentation except for the given fields, which apply to every channel."""
    channels = {name: 1.0 for name in NEVER if name.endswith("_channel")}
    return Augmentation(**{**NEVER, **channels, **changes})  # type: ignore[arg-type]


def _image(height: int = 30, width: int = 40, channels: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((channels, height, width)).astype(np.float32)


def _mask(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(1).integers(-1, 3, (height, width)).astype(np.int16)


def _turn(angle: float, scale: float = 1.0) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s], [s, c]])


@pytest.mark.parametrize("corner", [(0, 0), (5, 7), (-3, -4), (25, 35), (-10, 5), (40, 50)])
@pytest.mark.parametrize("size", [(8, 8), (50, 60), (1, 1)])
def test_windows_are_0_outside(corner: tuple[int, int], size: tuple[int, int]) -> None:
    image, mask = _image(), _mask()
    found, labels = cut(image, mask, corner, size)
    top, left = corner[0] + 100, corner[1] + 100
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    np.testing.assert_array_equal(
        found, np.pad(image, [(0, 0), (100, 100), (100, 100)])[(slice(None), *window)]
    )
    np.testing.assert_array_equal(labels, np.pad(mask, 100)[window])
    assert (found.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_quarter_turns_are_exact() -> None:
    image, mask = _image(20, 20), _mask(20, 20)
    for turns in range(4):
        found, labels = cut(image, mask, (4, 5), (10, 10), _turn(turns * math.pi / 2))
        window = (slice(4, 14), slice(5, 15))
        np.testing.assert_allclose(
            found, np.rot90(image[(slice(None), *window)], -turns, axes=(1, 2)), atol=1e-5
        )
        np.testing.assert_array_equal(labels, np.rot90(mask[window], -turns))


def _turned_whole(
    image: np.ndarray,
    corner: tuple[int, int],
    size: tuple[int, int],
    matrix: np.ndarray,
    dtype: torch.dtype,
) -> Tensor:
    """By definition, on the whole image: each pixel is the image at center + matrix @ offset."""
    offsets = np.stack(
        np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij"), axis=-1
    )
    centre = np.array(corner) + (np.array(size) - 1) / 2
    places = centre + offsets @ matrix.T
    grid = (2 * places + 1) / np.array(image.shape[1:]) - 1
    flipped = torch.from_numpy(grid[..., ::-1].copy()).to(dtype)[None]
    whole = torch.from_numpy(image).to(dtype)[None]
    return F.grid_sample(whole, flipped, "bilinear", "zeros", align_corners=False)[0]


@pytest.mark.parametrize("size", [(16, 16), (9, 21), (40, 10), (64, 64), (1, 5)])
@pytest.mark.parametrize("corner", [(5, 7), (-6, -6), (24, 30)])
@pytest.mark.parametrize(("angle", "scale"), [(0.3, 1.0), (2.0, 0.7), (-2.9, 1.4), (0.0, 1.3)])
def test_turned_windows_need_only_a_part_of_the_image(
    size: tuple[int, int], corner: tuple[int, int], angle: float, scale: float
) -> None:
    image, matrix = _image(), _turn(angle, scale)
    found, labels = cut(image, _mask(), corner, size, matrix)
    exact = _turned_whole(image, corner, size, matrix, torch.float64)
    plain = _turned_whole(image, corner, size, matrix, torch.float32)
    assert (found - exact).norm() <= 2 * (plain - exact).norm() + 1e-5 * exact.norm()
    assert labels.shape == size
    assert labels.dtype == torch.int64


def test_masks_turn_with_their_images() -> None:
    """A mask of large areas, as an image too: where that is whole, the labels are the same."""
    mask = np.zeros((60, 60), np.int64)
    mask[10:30, 20:50], mask[35:55, 5:25] = 2, -1
    image = mask[None].astype(np.float32)
    seen = set()
    for angle in np.linspace(-3, 3, 13):
        found, labels = cut(image, mask, (10, 10), (40, 40), _turn(angle, 0.9))
        whole = (found[0] - found[0].round()).abs() < 1e-4
        agree = found[0].round().long() == labels
        # No label is 1, but the image passes it between 0 and 2.
        assert agree[whole & (found[0].round() != 1)].float().mean() > 0.99
        seen.update(labels.unique().tolist())
    assert seen == {-1, 0, 2}


def test_rotation_and_scaling_are_drawn_as_told() -> None:
    rng = np.random.default_rng(0)
    config = Augmentation()
    drawn = [draw_matrix(config, (64, 64), rng) for _ in range(5000)]
    # Binomial, five deviations.
    share = sum(matrix is not None for matrix in drawn) / 5000
    assert abs(share - 0.36) < 5 * math.sqrt(0.36 * 0.64 / 5000)
    turned = [matrix for matrix in drawn if matrix is not None]
    scales = np.array([math.sqrt(np.linalg.det(matrix)) for matrix in turned])
    angles = np.degrees([math.atan2(matrix[1, 0], matrix[0, 0]) for matrix in turned])
    assert 0.7 <= scales.min() < 0.75 < 1.35 < scales.max() <= 1.4
    assert -180 <= angles.min() < -170 < 170 < angles.max() <= 180
    for size in ((64, 97), (97, 64)):
        oblong = [draw_matrix(config, size, rng) for _ in range(1000)]
        angles = np.degrees([math.atan2(m[1, 0], m[0, 0]) for m in oblong if m is not None])
        assert 10 < np.abs(angles).max() <= 15
    assert all(draw_matrix(_only(), (64, 64), rng) is None for _ in range(100))


def test_nothing_varies_when_told_so() -> None:
    image = torch.from_numpy(_image())
    for seed in range(20):
        assert vary(image, _only(), np.random.default_rng(seed)) is image


def _each_seed(config: Augmentation, check: Callable[[Tensor, Tensor], None]) -> None:
    image = torch.from_numpy(_image(100, 100)) * torch.tensor([1.0, 3.0])[:, None, None] + 2
    before = image.clone()
    for seed in range(30):
        found = vary(image, config, np.random.default_rng(seed))
        assert type(found) is Tensor
        assert found.dtype == torch.float32
        assert torch.equal(image, before)
        check(image, found)


def test_noise() -> None:
    deviations = []

    def check(image: Tensor, found: Tensor) -> None:
        per_channel = (found - image).std(dim=(1, 2))
        # 100x100 draws: a deviation is known to 0.7 %.
        assert per_channel[0] / per_channel[1] == pytest.approx(1, abs=0.05)
        deviations.append(float(per_channel.mean()))

    _each_seed(_only(p_noise=1), check)
    assert 0 < min(deviations) < 0.02 < 0.08 < max(deviations) <= 0.102


def test_brightness() -> None:
    factors = []

    def check(image: Tensor, found: Tensor) -> None:
        ratio = found / image
        assert ratio.std(dim=(1, 2)).max() < 1e-4
        factors.extend(ratio.mean(dim=(1, 2)).tolist())

    _each_seed(_only(p_brightness=1), check)
    assert 0.75 <= min(factors) < 0.85 < 1.15 < max(factors) <= 1.2501
    assert len({round(f, 5) for f in factors}) == 60


def test_contrast_stays_within_the_range() -> None:
    ratios = []

    def check(image: Tensor, found: Tensor) -> None:
        for x, y in zip(image, found, strict=True):
            assert x.min() <= y.min()
            assert y.max() <= x.max()
            inside = (y > x.min()) & (y < x.max())
            slope = ((y - x.mean()) / (x - x.mean()))[inside].median()
            ratios.append(float(slope))

    _each_seed(_only(p_contrast=1), check)
    assert min(ratios) + 1e-4 >= 0.75
    assert min(ratios) < 0.85
    assert 1.15 < max(ratios) <= 1.2501


@pytest.mark.parametrize("name", ["p_gamma", "p_gamma_inverted"])
def test_gamma_keeps_mean_deviation_and_order(name: str) -> None:
    bent = set()

    def check(image: Tensor, found: Tensor) -> None:
        for x, y in zip(image, found, strict=True):
            assert y.mean() == pytest.approx(float(x.mean()), abs=1e-4)
            assert y.std() == pytest.approx(float(x.std()), rel=1e-4)
            ordered = y.flatten()[x.flatten().argsort()]
            assert (ordered.diff() >= -1e-5).all()
            middle = x.flatten().argsort()[5000]
            bent.add(bool(y.flatten()[middle] > x.flatten()[middle]))

    _each_seed(_only(**{name: 1.0}), check)
    assert bent == {False, True}


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_is_monais(exponent: float, inverted: bool) -> None:
    name = "p_gamma_inverted" if inverted else "p_gamma"
    config = _only(**{name: 1.0, "gamma": (exponent, exponent)})
    image = torch.from_numpy(_image()) + 3
    found = vary(image, config, np.random.default_rng(0))
    for x, y in zip(image, found, strict=True):
        expected = AdjustContrast(exponent, inverted, retain_stats=True)(x)
        torch.testing.assert_close(y, expected.as_tensor())


@pytest.mark.parametrize("name", ["p_blur", "p_low_resolution"])
def test_blur_and_low_resolution_smooth(name: str) -> None:
    roughnesses = []

    def check(image: Tensor, found: Tensor) -> None:
        assert found.shape == image.shape
        for x, y in zip(image, found, strict=True):
            roughness = y.diff(dim=1).square().mean() / x.diff(dim=1).square().mean()
            roughnesses.append(float(roughness))
            assert y.mean() == pytest.approx(float(x.mean()), abs=0.1 * float(x.std()))

    _each_seed(_only(**{name: 1.0}), check)
    # A size of 99.7 % rounds to the same.
    assert max(roughnesses) <= 1
    assert min(roughnesses) < 0.3
    # Half of the channels are spared by default.
    spared = []
    image = torch.from_numpy(_image(16, 16, channels=10))
    for seed in range(50):
        config = _only(**{name: 1.0, f"{name}_channel": 0.5})
        found = vary(image, config, np.random.default_rng(seed))
        spared.extend((found == image).flatten(1).all(1).tolist())
    assert abs(np.mean(spared) - 0.5) < 5 * math.sqrt(0.25 / 500)


def test_mirroring_moves_image_and_mask_alike() -> None:
    mask = torch.arange(12).reshape(3, 4)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        image, labels = mirror(mask[None].float(), mask, Augmentation(), rng)
        assert torch.equal(image[0].long(), labels)
        seen.add(tuple(labels.flatten().tolist()))
    assert len(seen) == 4


def _cases() -> list[Case]:
    """One volume of 9 slices with foreground in one of them, and a lone slice."""
    cases = []
    for i in range(9):
        mask = np.zeros((40, 40), np.int64)
        if i == 4:
            mask[5, 30] = 2
        cases.append(Case(f"a, slice {i}", np.full((1, 40, 40), i, np.float32), mask, "a"))
    cases.append(Case("b", np.full((1, 40, 40), 100, np.float32), np.zeros((40, 40), np.int64)))
    return cases


def test_volumes_are_drawn_evenly_and_foreground_finds_its_slice() -> None:
    sampler = PatchSampler(_cases(), patch_size=(9, 9), batch_size=3, augment=False)
    batches = [sampler.batch(index) for index in range(400)]
    images = torch.stack([images for images, _ in batches])
    masks = torch.stack([masks for _, masks in batches])
    lone = (images[..., 0, 0] == 100).float().mean()
    assert abs(lone - 0.5) < 5 * math.sqrt(0.25 / 1200)
    last, last_masks = images[:, 2, 0, 0, 0], masks[:, 2]
    assert set(last.tolist()) == {4.0, 100.0}
    assert (last_masks[last == 4][:, 4, 4] == 2).all()
    anywhere = images[:, :2, 0, 0, 0]
    assert set(anywhere.flatten().tolist()) == {*range(9), 100}


def test_a_batch_depends_on_its_index_alone() -> None:
    def sampler(seed: int = 0, rank: int = 0, world_size: int = 1) -> PatchSampler:
        return PatchSampler(
            _cases(),
            patch_size=(24, 24),
            batch_size=4,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )

    one, other = sampler(), sampler()
    forth = [one.batch(index) for index in range(6)]
    back = [other.batch(index) for index in reversed(range(6))][::-1]
    for ours, theirs in zip(forth, back, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    different = [*forth, sampler(seed=1).batch(0)]
    for i, (ours, _) in enumerate(different):
        assert not any(torch.equal(ours, theirs) for theirs, _ in different[:i])
    for bad in ({"seed": -1}, {"rank": 1}, {"rank": -1, "world_size": 2}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            sampler(**bad)


def test_batches_stay_in_bounds_and_finite() -> None:
    """Everything at once, on images smaller and larger than the patch, some of them constant."""
    always = Augmentation(**dict.fromkeys(NEVER, 1.0))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    cases = [
        Case(
            str(i),
            (rng.standard_normal((3, h, w)) * (i % 2)).astype(np.float32),
            rng.integers(-1, 3, (h, w)),
        )
        for i, (h, w) in enumerate([(1, 1), (5, 90), (90, 5), (33, 47), (128, 128)])
    ]
    sampler = PatchSampler(cases, patch_size=(32, 48), batch_size=4, augment=always)
    for index in range(20):
        images, masks = sampler.batch(index)
        assert images.shape == (4, 3, 32, 48)
        assert images.isfinite().all()
        assert images.abs().max() < 50
        assert set(masks.unique().tolist()) <= {-1, 0, 1, 2}
