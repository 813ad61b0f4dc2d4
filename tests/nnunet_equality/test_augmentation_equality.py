"""Each transform equals that of batchgeneratorsv2 for the same random numbers."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_umamba.data import Augmentation
from swin_umamba.data.sampling.augmentation import cut, mirror, vary

NONE = replace(
    Augmentation(),
    **{f.name: 0.0 for f in fields(Augmentation) if f.name.startswith("p_")},
)
ALL = torch.tensor([0, 1])


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(1, 2, (2, 40, 50)).astype(np.float32))


def _varied(image: Tensor, **numbers: Any) -> Tensor:
    return vary(image, replace(NONE, **numbers), np.random.default_rng(0))


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_brightness(image: Tensor, factor: float) -> None:
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform

    transform = MultiplicativeBrightnessTransform(factor, False)
    expected = transform._apply_to_image(
        image.clone(), apply_to_channel=ALL, multipliers=torch.tensor([factor] * 2)
    )
    found = _varied(image, p_brightness=1.0, brightness=(factor, factor))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_contrast(image: Tensor, factor: float) -> None:
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform

    transform = ContrastTransform(factor, preserve_range=True, synchronize_channels=False)
    expected = transform._apply_to_image(
        image.clone(), apply_to_channel=ALL, multipliers=torch.tensor([factor] * 2)
    )
    found = _varied(image, p_contrast=1.0, contrast=(factor, factor))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("gamma", [0.8, 1.4])
def test_gamma(image: Tensor, gamma: float, inverted: bool) -> None:
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform

    transform = GammaTransform(gamma, float(inverted), False, 1.0, 1.0)
    expected = transform._apply_to_image(
        image.clone(),
        apply_to_channel=ALL,
        retain_stats=torch.tensor([True] * 2),
        invert_image=torch.tensor([inverted] * 2),
        gamma=torch.tensor([gamma] * 2),
    )
    name = "p_gamma_inverted" if inverted else "p_gamma"
    found = _varied(image, **{name: 1.0}, gamma=(gamma, gamma))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur(image: Tensor, sigma: float) -> None:
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

    transform = GaussianBlurTransform((sigma, sigma), False, False, 1.0, benchmark=False)
    expected = transform._apply_to_image(
        image.clone(), apply_to_channel=torch.tensor([True] * 2), sigmas=[[sigma] * 2] * 2
    )
    found = _varied(image, p_blur=1.0, p_blur_channel=1.0, blur=(sigma, sigma))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", [0.5, 0.77])
def test_low_resolution(image: Tensor, scale: float) -> None:
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

    transform = SimulateLowResolutionTransform(scale, False, True, None)  # type: ignore[arg-type]
    expected = transform._apply_to_image(
        image.clone(), apply_to_channel=ALL, scales=torch.full((2, 2), scale)
    )
    found = _varied(
        image,
        p_low_resolution=1.0,
        p_low_resolution_channel=1.0,
        low_resolution=(scale, scale),
    )
    torch.testing.assert_close(found, expected)


def test_noise(image: Tensor) -> None:
    """Of the deviation that theirs calls a variance."""
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform

    torch.manual_seed(0)
    transform = GaussianNoiseTransform((0.1, 0.1), 1.0, True)
    theirs = transform(image=image.clone())["image"] - image
    ours = _varied(image, p_noise=1.0, noise=(0.1, 0.1)) - image
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)
    assert float(ours.std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.3), (0.4, 1.0), (-1.2, 0.8), (3.0, 0.75)])
def test_rotation_and_scaling(angle: float, scale: float) -> None:
    from batchgeneratorsv2.transforms.spatial.spatial import (
        SpatialTransform,
        _convert_my_grid_to_grid_sample_grid,
        create_affine_matrix_2d,
    )

    y, x = np.mgrid[:48, :64]
    picture = (np.sin(y / 6) + np.cos(x / 5 + y / 13)).astype(np.float32)[None]
    labels = (np.hypot(y - 20, x - 36) < 9).astype(np.int64)
    size = (32, 32)
    transform = SpatialTransform(size, 0, False)
    affine = create_affine_matrix_2d(angle, [scale, scale])
    grid = torch.matmul(transform._get_base_grid_clone(), torch.from_numpy(affine.T).float())
    grid = _convert_my_grid_to_grid_sample_grid(grid, (48, 64))
    expected = transform._apply_to_image(torch.from_numpy(picture), grid=grid)
    expected_labels = transform._apply_to_segmentation(torch.from_numpy(labels)[None], grid=grid)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    found, found_labels = cut(picture, labels, (8, 16), size, np.array([[c, -s], [s, c]]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float((found_labels != expected_labels[0]).float().mean()) < 0.01


def test_mirroring(image: Tensor) -> None:
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

    mask = (image[0] > 0).long()
    found = mirror(image, mask, replace(NONE, p_mirror=1.0), np.random.default_rng(0))
    transform = MirrorTransform((0, 1))
    assert torch.equal(found[0], transform._apply_to_image(image, axes=[0, 1]))
    assert torch.equal(found[1], transform._apply_to_segmentation(mask[None], axes=[0, 1])[0])


def test_numbers_are_those_of_their_trainer() -> None:
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    composed = nnUNetTrainer.get_training_transforms(
        (64, 64), (-math.pi, math.pi), None, (0, 1), False, ignore_label=None
    )
    spatial, *rest = composed.transforms
    ours = Augmentation()
    assert (spatial.p_rotation, spatial.p_scaling) == (ours.p_rotation, ours.p_scaling)
    assert spatial.scaling == ours.scaling
    drawn = [t for t in rest if isinstance(t, RandomTransform)]
    assert [t.apply_probability for t in drawn] == [
        *(ours.p_noise, ours.p_blur, ours.p_brightness, ours.p_contrast),
        *(ours.p_low_resolution, ours.p_gamma_inverted, ours.p_gamma),
    ]
    noise, blur, brightness, contrast, low, inverted, gamma = (t.transform for t in drawn)
    assert noise.noise_variance == ours.noise
    assert (blur.blur_sigma, blur.p_per_channel) == (ours.blur, ours.p_blur_channel)
    assert brightness.multiplier_range.contrast_range == ours.brightness
    assert contrast.contrast_range.contrast_range == ours.contrast
    assert low.scale == ours.low_resolution
    assert low.p_per_channel == ours.p_low_resolution_channel
    for each, share in ((inverted, 1), (gamma, 0)):
        assert (each.gamma.contrast_range, each.p_invert_image) == (ours.gamma, share)
        assert each.p_retain_stats == 1
