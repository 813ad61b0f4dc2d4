"""Cropping, normalization, fingerprint and resampling, compared with nnU-Net's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from data_helpers import write_nnunet

from swin_umamba.data import Intensity, Plan, make_plan, open_dataset, read_raw, take_fingerprint
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.cropping import nonzero_box, nonzero_mask
from swin_umamba.data.prepare.normalization import Normalization, scheme_of
from swin_umamba.data.prepare.resampling import resample_image, resample_labels
from swin_umamba.data.prepare.rules import MASKED_BELOW

FACTS = Intensity(40.0, 12.0, 39.0, 10.0, 90.0)
PROPERTIES = {"mean": 40.0, "std": 12.0, "percentile_00_5": 10.0, "percentile_99_5": 90.0}


def _volume(seed: int, channels: int = 2, shape: tuple[int, ...] = (5, 30, 40)) -> np.ndarray:
    """Noise with zeros around it, holes in it, and a channel that reaches farther."""
    rng = np.random.default_rng(seed)
    image = np.zeros((channels, *shape), np.float32)
    z, y, x = (slice(n // 5, n - n // 4) for n in shape)
    image[:, z, y, x] = rng.normal(50, 20, image[:, z, y, x].shape)
    image[rng.random(image.shape) < 0.3] = 0
    image[0, shape[0] // 2, min(2, shape[1] - 1), 3] = 7
    return image


def _raw(image: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> RawImage:
    return RawImage(image, spacing, (Path("x.nii"),), None)


@pytest.mark.parametrize("shape", [(5, 30, 40), (1, 30, 40), (7, 8, 9), (1, 1, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_crop(seed: int, shape: tuple[int, ...]) -> None:
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask, crop_to_nonzero

    image = _volume(seed, shape=shape)
    if seed == 3:
        image[:] = 0
    _, seg, box = crop_to_nonzero(image.copy())
    ours = nonzero_box(image)
    assert [[part.start, part.stop] for part in ours] == [list(part) for part in box]
    np.testing.assert_array_equal(nonzero_mask(image), create_nonzero_mask(image))
    np.testing.assert_array_equal(nonzero_mask(image[(slice(None), *ours)]), seg[0] >= 0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ZScoreNormalization", "zscore"),
        ("CTNormalization", "ct"),
        ("NoNormalization", "none"),
        ("RescaleTo01Normalization", "rescale_to_0_1"),
        ("RGBTo01Normalization", "rgb_to_0_1"),
    ],
)
def test_normalisation(theirs: str, ours: str, masked: bool) -> None:
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

    image = np.clip(_volume(0, channels=1), 0, 255)
    seg = np.where(nonzero_mask(image), 0, -1)
    scheme = getattr(schemes, theirs)(masked, PROPERTIES)
    expected = scheme.run(image[0].copy(), seg)
    used = masked and scheme.leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true
    found = np.empty(image.shape, np.float32)
    Normalization(_raw(image), [ours], [FACTS], [bool(used)]).fill(found, np.s_[:, :, :])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_schemes_of_names() -> None:
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
        get_normalization_scheme,
    )

    names = {
        "ZScoreNormalization": "zscore",
        "CTNormalization": "ct",
        "NoNormalization": "none",
        "RescaleTo01Normalization": "rescale_to_0_1",
        "RGBTo01Normalization": "rgb_to_0_1",
    }
    for name in ("CT", "ct", "MRI", "R", "rgb_to_0_1", "rescale_to_0_1", "noNorm", "zscore", ""):
        assert scheme_of(name) == names[get_normalization_scheme(name).__name__]


def _save(path: Path, volume: np.ndarray, zooms: tuple[float, float, float]) -> None:
    nibabel.save(nibabel.Nifti1Image(volume.transpose(), np.diag([*zooms, 1.0])), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cases of two channels, unlike in size, brightness and spacing."""
    folder = write_nnunet(
        tmp_path, cases=4, shape=(4, 6, 6), ending=".nii.gz", channels=("CT", "MRI")
    )
    for i in range(4):
        image = _volume(i, shape=(4 + i, 30 + 4 * i, 40))
        image += 10 * i * (image > 0)
        zooms = (1.0 + 0.1 * i, 1.0, 2.5)
        for channel in range(2):
            _save(folder / "imagesTr" / f"case_{i}_{channel:04d}.nii.gz", image[channel], zooms)
        label = (image[0] > 60).astype(np.uint8)
        _save(folder / "labelsTr" / f"case_{i}.nii.gz", label, zooms)
    return folder


def test_fingerprint(folder: Path) -> None:
    """nnU-Net draws a seeded sample with replacement; ours is what that converges to."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    ours = take_fingerprint(open_dataset(folder))
    cases = [
        DatasetFingerprintExtractor.analyze_case(
            [str(folder / "imagesTr" / f"case_{i}_{c:04d}.nii.gz") for c in range(2)],
            str(folder / "labelsTr" / f"case_{i}.nii.gz"),
            NibabelIO,
            200_000,
        )
        for i in range(4)
    ]
    assert [tuple(case[0]) for case in cases] == list(ours.cropped)
    np.testing.assert_allclose([case[1] for case in cases], ours.spacings, rtol=1e-5)
    assert np.median([case[4] for case in cases]) == pytest.approx(ours.relative_size)
    for channel, facts in enumerate(ours.intensities):
        drawn = np.concatenate([case[2][channel] for case in cases]).astype(np.float64)
        low, median, high = np.percentile(drawn, (0.5, 50, 99.5))
        tolerance = 0.01 * facts.std
        assert facts.mean == pytest.approx(drawn.mean(), abs=tolerance)
        assert facts.std == pytest.approx(drawn.std(), abs=tolerance)
        assert facts.median == pytest.approx(median, abs=5 * tolerance)
        assert facts.low == pytest.approx(low, abs=10 * tolerance)
        assert facts.high == pytest.approx(high, abs=10 * tolerance)


@pytest.mark.parametrize("masked", [False, True])
def test_whole_preprocessing_without_resampling(folder: Path, masked: bool) -> None:
    """Crop and normalization in nnU-Net's order, of a case at the plan's spacing."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    dataset = open_dataset(folder)
    plan = replace(
        make_plan(dataset),
        axis=0,
        intensities=(FACTS, FACTS),
        mask_normalization=(False, masked),
        spacing=(1.0, 1.0),
    )
    raw = read_raw(dataset.cases[0].images)
    data, properties = NibabelIO().read_images([str(path) for path in raw.paths])
    found, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        data, None, properties, _plans(), _configuration([False, masked]), {}
    )
    np.testing.assert_allclose(
        plan.preprocess(raw), found.transpose(1, 0, 2, 3), rtol=1e-4, atol=1e-4
    )
    probabilities = np.random.default_rng(0).random((2, *found.shape[1:])).astype(np.float32)
    restored = plan.restore(probabilities.swapaxes(0, 1), raw)
    manager = _label_manager({"background": 0, "blob": 1}, None)
    expected = manager.revert_cropping_on_probabilities(
        probabilities, properties["bbox_used_for_cropping"], raw.pixels.shape[1:]
    )
    np.testing.assert_array_equal(restored, expected)


def _plans() -> Any:
    return SimpleNamespace(
        transpose_forward=[0, 1, 2],
        foreground_intensity_properties_per_channel={"0": PROPERTIES, "1": PROPERTIES},
    )


def _configuration(masked: list[bool]) -> Any:
    def untouched(data: np.ndarray, shape: Any, *spacings: Any) -> np.ndarray:
        assert data.shape[1:] == tuple(shape)
        return data

    return SimpleNamespace(
        spacing=[1.0, 1.0],
        normalization_schemes=["CTNormalization", "ZScoreNormalization"],
        use_mask_for_norm=masked,
        resampling_fn_data=untouched,
        resampling_fn_seg=untouched,
    )


def _label_manager(labels: dict[str, Any], order: list[int] | None) -> Any:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    return LabelManager(labels, order)


def test_masks_are_used_below_three_quarters() -> None:
    """The planner's own bound, read from its code: its class needs a whole nnU-Net workspace."""
    import inspect

    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner

    planner = default_experiment_planner.ExperimentPlanner
    code = inspect.getsource(
        planner.determine_normalization_scheme_and_whether_mask_is_used_for_norm
    )
    assert "median_relative_size_after_cropping'] < (3 / 4.)" in code
    assert MASKED_BELOW == 3 / 4


@pytest.mark.parametrize("spacing", [(1, 0.7, 1.3), (1, 2.2, 2.2), (3, 0.51, 0.49)])
def test_sizes_after_resampling(spacing: tuple[float, float, float]) -> None:
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    for height, width in ((31, 47), (64, 65), (5, 500)):
        image = np.ones((1, 3, height, width), np.float32)
        placement = _plain_plan().placement(_raw(image, spacing))
        expected = compute_new_shape((3, height, width), spacing, (spacing[0], 1.0, 1.0))
        assert (placement.depth, *placement.size) == tuple(expected)


def _plain_plan() -> Plan:
    return Plan(
        dataset="d",
        channel_names=("x",),
        files_per_image=1,
        labels={"background": 0, "a": 1},
        values=(0, 1),
        ignore_label=None,
        file_ending=".nii.gz",
        normalization=("none",),
        intensities=(FACTS,),
        axis=0,
        spacing=(1.0, 1.0),
        patch_size=(64, 64),
    )


def _smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (np.sin(y / 5) + np.cos(x / 7 + y / 11)).astype(np.float32)


def _theirs(slices: np.ndarray, size: tuple[int, int], **options: Any) -> np.ndarray:
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    moved = slices.swapaxes(0, 1).astype(np.float64)
    shape = (slices.shape[0], *size)
    return resample_data_or_seg(moved, shape, axis=0, do_separate_z=True, **options).swapaxes(0, 1)


def test_enlarged_smooth_images_agree() -> None:
    """nnU-Net interpolates by cubic splines, ours by a cubic kernel: alike in smooth images."""
    slices = np.stack([_smooth(40, 50), _smooth(50, 40).T])[:, None]
    ours, theirs = resample_image(slices, (72, 85)), _theirs(slices, (72, 85), order=3)
    inside = (..., slice(6, -6), slice(6, -6))
    assert np.abs(ours - theirs)[inside].max() < 0.02 * np.ptp(slices)
    np.testing.assert_allclose(resample_image(slices, (40, 50)), slices)


def test_shrunk_images_differ_on_purpose() -> None:
    """Ours is smoothed first; nnU-Net's is not and shows aliases."""
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (64, 32))[None, None]
    ours, theirs = resample_image(stripes, (43, 43)), _theirs(stripes, (43, 43), order=3)
    inside = (..., slice(4, -4), slice(4, -4))
    assert ours[inside].std() < 0.1
    assert theirs[inside].std() > 0.2
    smooth = _smooth(90, 100)[None, None]
    ours, theirs = resample_image(smooth, (60, 70)), _theirs(smooth, (60, 70), order=3)
    assert np.abs(ours - theirs)[inside].max() < 0.03 * np.ptp(smooth)


def test_labels_agree_but_at_their_edges() -> None:
    """nnU-Net takes each label's area linearly, ours the nearest pixel: within a pixel."""
    y, x = np.mgrid[:50, :60]
    labels = (np.hypot(y - 25, x - 30) < 15).astype(np.int64)[None]
    labels[0, :10, :10] = 2
    for size in ((81, 97), (33, 41)):
        theirs = _theirs(labels[:, None], size, is_seg=True, order=1)[:, 0]
        ours = resample_labels(labels, size)
        assert (ours != theirs).mean() < 0.02
        for label in (1, 2):
            assert (ours == label).mean() == pytest.approx((theirs == label).mean(), abs=0.01)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "a": 1, "b": 2}, None),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": 3}, [1, 2, 3]),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": [3]}, [3, 1, 2]),
    ],
)
def test_decisions(tmp_path: Path, labels: dict[str, Any], order: list[int] | None) -> None:
    facts = {} if order is None else {"regions_class_order": order}
    plan = make_plan(open_dataset(write_nnunet(tmp_path, labels=labels, **facts)))
    manager = _label_manager(labels, order)
    assert plan.num_outputs == manager.num_segmentation_heads
    probabilities = np.random.default_rng(0).random((plan.num_outputs, 20, 30), np.float32)
    expected = manager.convert_probabilities_to_segmentation(probabilities)
    np.testing.assert_array_equal(plan.decide(probabilities), expected)
    outside = manager.revert_cropping_on_probabilities(
        probabilities[..., :1, :1], [[0, 1], [0, 1]], (2, 2)
    )[:, 1, 1]
    np.testing.assert_array_equal(plan.outside, outside)
