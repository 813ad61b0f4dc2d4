"""Cropping to the nonzero region, statistics of it, and the way back: as in nnU-Net."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blob, noise, write_nnunet, write_pixels

from swin_umamba.data import Plan, make_plan, open_dataset, read_raw
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.cropping import nonzero_box, nonzero_mask

SHAPE = (6, 20, 24)


def _image(shape: tuple[int, ...] = SHAPE, channels: int = 1) -> np.ndarray:
    """Noise above 0 in a box off the middle, 0 around it."""
    image = np.zeros((channels, *shape), np.uint8)
    image[:, 1:5, 3:15, 4:10] = 1 + noise((channels, 4, 12, 6), 0) // 2
    return image


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Three volumes that are nonzero in 4x12x6 of 6x20x24 pixels."""
    folder = write_nnunet(tmp_path / "d", shape=SHAPE, ending=".nii.gz")
    for path in (folder / "imagesTr").iterdir():
        write_pixels(path, _image()[0])
    return make_plan(open_dataset(folder))


def _raw(pixels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> RawImage:
    return RawImage(pixels, spacing, (Path("x.nii"),), None)


def test_boxes_hold_what_is_not_zero_in_any_channel() -> None:
    image = np.zeros((2, *SHAPE), np.int16)
    image[0, 2, 5, 7] = -3
    image[1, 3, 2, 9] = 1
    assert nonzero_box(image) == (slice(2, 4), slice(2, 6), slice(7, 10))
    assert nonzero_box(image * 0) == (slice(0, 6), slice(0, 20), slice(0, 24))
    assert nonzero_box(image[:, 2:3]) == (slice(0, 1), slice(5, 6), slice(7, 8))


def test_masks_have_their_holes_filled_in_three_dimensions() -> None:
    image = np.ones((1, 3, 5, 5), np.uint8)
    image[0, 1, 2, 2] = 0
    assert nonzero_mask(image).all()
    flat = np.ones((1, 1, 5, 5), np.uint8)
    flat[0, 0, 2, 2] = 0
    assert nonzero_mask(flat).sum() == 24


def test_new_plans_crop_and_old_ones_do_not(plan: Plan) -> None:
    assert plan.crop_to_nonzero
    assert plan.mask_normalization == (True,)
    assert plan.preprocess(_raw(_image())).shape == (4, 1, 12, 6)
    old = {
        name: value
        for name, value in json.loads(plan.to_json()).items()
        if name
        not in (
            *("schema", "crop_to_nonzero", "mask_normalization", "batch_size"),
            *("regions", "region_names", "regions_class_order"),
        )
    }
    former = Plan.from_values(old)
    assert not former.crop_to_nonzero
    assert former.preprocess(_raw(_image())).shape == (6, 1, 20, 24)


@pytest.mark.slow
def test_statistics_are_of_what_is_not_zero(plan: Plan) -> None:
    pixels = _image()
    pixels[0, 2, 5, 5] = 0  # a hole
    pixels[0, 1, 3:6, 4:9] = 0  # a corner
    inside = nonzero_mask(pixels)[1:5, 3:15, 4:10]
    known = pixels[0, 1:5, 3:15, 4:10].astype(np.float64)
    expected = np.where(inside, (known - known[inside].mean()) / known[inside].std(), 0)
    found = plan.preprocess(_raw(pixels))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert not inside.all()
    plain = replace(plan, mask_normalization=(False,)).preprocess(_raw(pixels))[:, 0]
    np.testing.assert_allclose(plain, (known - known.mean()) / known.std(), rtol=1e-5, atol=1e-6)


def test_large_parts_are_not_masked(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, shape=SHAPE, ending=".nii.gz", channels=("T1", "CT"))
    found = make_plan(open_dataset(folder))
    assert found.mask_normalization == (False, False)
    for path in (folder / "imagesTr").iterdir():
        write_pixels(path, _image()[0])
    assert make_plan(open_dataset(folder)).mask_normalization == (True, False)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1, 1), (0.5, 1.7)])
def test_what_was_cropped_off_comes_back_as_background(
    plan: Plan, axis: int, spacing: tuple[float, float]
) -> None:
    plan = replace(plan, axis=axis, spacing=spacing)
    raw = _raw(_image())
    slices = plan.preprocess(raw)
    rng = np.random.default_rng(0)
    probabilities = rng.random((len(slices), 2, *slices.shape[2:])).astype(np.float32)
    probabilities /= probabilities.sum(1, keepdims=True)
    restored = plan.restore(probabilities, raw)
    assert restored.shape == (2, *SHAPE)
    box = nonzero_box(raw.pixels)
    outside = np.ones(SHAPE, bool)
    outside[box] = False
    assert (restored[0][outside] == 1).all()
    assert (restored[1][outside] == 0).all()
    np.testing.assert_allclose(restored.sum(0), 1, rtol=1e-5)
    labels = plan.restore(np.ones((len(slices), *slices.shape[2:]), np.int64), raw)
    assert labels.shape == SHAPE
    assert labels[box].all()
    assert not labels[outside].any()


def test_labels_are_cropped_with_their_image(plan: Plan) -> None:
    raw = _raw(_image())
    classes = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    found = plan.preprocess_labels(classes, raw)
    np.testing.assert_array_equal(found, classes[1:5, 3:15, 4:10])
    restored = plan.restore(found, raw)
    np.testing.assert_array_equal(restored[1:5, 3:15, 4:10], classes[1:5, 3:15, 4:10])


def test_patches_are_as_large_as_what_is_left(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, shape=(300, 400))
    assert make_plan(open_dataset(folder)).patch_size == (320, 416)
    for path in (folder / "imagesTr").iterdir():
        image = np.zeros((300, 400), np.uint8)
        image[100:200, :90] = 1
        write_pixels(path, image)
    assert make_plan(open_dataset(folder)).patch_size == (128, 96)


def test_a_picture_is_read_cropped_and_restored(tmp_path: Path) -> None:
    image = np.zeros((20, 24), np.uint8)
    image[3:15, 4:10] = 7
    write_pixels(tmp_path / "x.png", image)
    raw = read_raw(tmp_path / "x.png")
    folder = write_nnunet(tmp_path / "d")
    plan = make_plan(open_dataset(folder))
    assert plan.preprocess(raw).shape == (1, 1, 12, 6)
    restored = plan.restore(blob((1, 12, 6)), raw)
    assert restored.shape == (1, 20, 24)
    assert restored.sum() == blob((1, 12, 6)).sum()
