"""Plans, normalization, resampling, splits, and writing results."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from data_helpers import blob, noise, write_bare, write_nnunet, write_pixels
from PIL import Image

from swin_umamba.data import (
    Intensity,
    Plan,
    Split,
    make_plan,
    make_splits,
    mask_ending,
    normalize,
    open_dataset,
    pick_split,
    read_labels,
    read_raw,
    read_splits,
    write_labels,
    write_probabilities,
    write_splits,
)
from swin_umamba.errors import UserError


def _volume(path: Path, shape: tuple[int, ...], zooms: tuple[float, ...]) -> Path:
    write_pixels(path, noise(shape, seed=0), zooms)
    return path


def _plan(axis: int = 0, spacing: tuple[float, float] = (1, 1), scheme: str = "zscore") -> Plan:
    return Plan(
        dataset="d",
        channel_names=("x",),
        files_per_image=1,
        labels={"background": 0, "a": 1, "b": 2},
        values=(0, 1, 2),
        ignore_label=None,
        file_ending=".nii.gz",
        normalization=(scheme,),
        intensities=(Intensity(100.0, 20.0, 99.0, 10.0, 200.0),),
        axis=axis,
        spacing=spacing,
        patch_size=(64, 64),
    )


@pytest.mark.parametrize(
    ("zooms", "axis", "spacing"),  # zooms in (x, y, z), as NIfTI has them
    [
        ((1, 1, 1), 0, (1, 1)),
        ((0.5, 0.6, 3), 0, (0.6, 0.5)),
        ((1, 5, 1), 1, (1, 1)),
        ((5, 2, 1), 2, (1, 2)),
        ((1.005, 1, 1), 0, (1, 1.005)),
    ],
)
def test_volumes_are_sliced_along_the_coarsest_axis(
    tmp_path: Path, zooms: tuple[float, ...], axis: int, spacing: tuple[float, float]
) -> None:
    folder = write_nnunet(tmp_path, cases=1, shape=(40, 100, 300), ending=".nii.gz")
    write_pixels(folder / "imagesTr/case_0_0000.nii.gz", noise((40, 100, 300), 0), zooms)
    write_pixels(folder / "labelsTr/case_0.nii.gz", blob((40, 100, 300)), zooms)
    plan = make_plan(open_dataset(folder))
    assert plan.axis == axis
    assert plan.spacing == pytest.approx(spacing)
    sizes = [64, 128, 320]
    del sizes[axis]
    assert plan.patch_size == tuple(sizes)
    chosen = make_plan(open_dataset(folder), axis=2, patch_size=(32, 48))
    assert (chosen.axis, chosen.patch_size) == (2, (32, 48))
    with pytest.raises(UserError, match="axis: got 3"):
        make_plan(open_dataset(folder), axis=3)


def test_plan_goes_through_json(tmp_path: Path) -> None:
    plan = make_plan(open_dataset(write_bare(tmp_path / "data")))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert (plan.in_channels, plan.num_classes, plan.values) == (3, 2, (0, 255))
    facts = json.loads(plan.to_json())
    for broken in ("", "[]", "{}", json.dumps({**facts, "axis": 3}), plan.to_json()[:-9]):
        (tmp_path / "plan.json").write_text(broken)
        with pytest.raises(UserError, match=r"plan\.json"):
            Plan.load(tmp_path / "plan.json")
    for name in ("channel_names", "normalization", "intensities", "spacing", "labels", "values"):
        (tmp_path / "plan.json").write_text(json.dumps({**facts, name: 1}))
        with pytest.raises(UserError, match=r"plan\.json"):
            Plan.load(tmp_path / "plan.json")


def test_normalization_goes_by_the_channels_names(tmp_path: Path) -> None:
    names = ("CT", "rgb_to_0_1", "noNorm", "T1", "R")
    plan = make_plan(open_dataset(write_nnunet(tmp_path, channels=names)))
    assert plan.normalization == ("ct", "rgb_to_0_1", "none", "zscore", "zscore")
    raw = read_raw(open_dataset(tmp_path).cases[0].images)
    (found,) = plan.preprocess(raw)
    pixels = raw.pixels[:, 0].astype(np.float64)
    facts = plan.intensities[0]
    ct = (np.clip(pixels[0], facts.low, facts.high) - facts.mean) / facts.std
    np.testing.assert_allclose(found[0], ct, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], pixels[1] / 255, rtol=1e-6)
    np.testing.assert_array_equal(found[2], pixels[2])
    for i in (3, 4):
        expected = (pixels[i] - pixels[i].mean()) / pixels[i].std()
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)
    forced = make_plan(open_dataset(tmp_path), normalization=("none",) * 5)
    np.testing.assert_array_equal(forced.preprocess(raw)[0], pixels)
    with pytest.raises(UserError, match="normalization"):
        make_plan(open_dataset(tmp_path), normalization=("nonsense",) * 5)


def test_volumes_are_normalized_as_a_whole_and_constants_become_0(tmp_path: Path) -> None:
    raw = read_raw(_volume(tmp_path / "x.nii.gz", (6, 7, 8), (1, 1, 1)))
    slices = _plan().preprocess(raw)
    assert slices.dtype == np.float32
    assert slices.mean() == pytest.approx(0, abs=1e-6)
    assert slices.std() == pytest.approx(1, abs=1e-6)
    assert np.abs(slices.mean(axis=(1, 2, 3))).max() > 0.01
    constant = replace(raw, pixels=np.full_like(raw.pixels, 7))
    assert not _plan().preprocess(constant).any()
    # Real numbers, as a NIfTI's slope makes them, whose mean is not the number itself.
    tenths = replace(raw, pixels=np.full((1, 1, 53, 56), 0.1))
    assert np.abs(_plan().preprocess(tenths)).max() < 1e-9
    assert np.abs(normalize(tenths.pixels[:, 0])).max() < 1e-9
    fine = replace(raw, pixels=1 + 1e-6 * raw.pixels.astype(np.float64))
    np.testing.assert_allclose(_plan().preprocess(fine), slices, rtol=1e-5, atol=1e-5)
    deep = replace(raw, pixels=raw.pixels.astype(np.uint16) * 257)
    np.testing.assert_allclose(_plan().preprocess(deep), slices, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"x\.nii\.gz holds pixels from .* 0 to 255"):
        _plan(scheme="rgb_to_0_1").preprocess(deep)


def test_spacings_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    raw = read_raw(_volume(tmp_path / "x.nii.gz", (9, 90, 90), (900, 900, 1)))
    with pytest.raises(
        UserError, match=r"spacing \(1.0, 900.0, 900.0\) .* 9 slices of 81000x81000"
    ):
        _plan().preprocess(raw)
    assert _plan(spacing=(450, 450)).preprocess(raw).shape == (9, 1, 180, 180)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_along_the_axis_and_are_restored(tmp_path: Path, axis: int) -> None:
    shape = (3, 4, 5)
    raw = read_raw(_volume(tmp_path / "x.nii.gz", shape, (1, 1, 1)))
    plan = _plan(axis=axis, scheme="none")
    slices = plan.preprocess(raw)
    for i in range(shape[axis]):
        np.testing.assert_array_equal(slices[i, 0], raw.pixels[0].take(i, axis=axis))
    labels = np.random.default_rng(0).integers(0, 3, shape)
    as_slices = plan.preprocess_labels(labels, raw)
    assert as_slices.shape == (slices.shape[0], *slices.shape[2:])
    np.testing.assert_array_equal(plan.restore(as_slices, raw), labels)
    np.testing.assert_array_equal(plan.restore(slices, raw), raw.pixels)
    with pytest.raises(ValueError, match="slices: got shape"):
        plan.restore(slices[:, :, 1:], raw)


def test_slices_are_resampled_to_the_plans_spacing(tmp_path: Path) -> None:
    """A slope stays what it is at the same place, in both directions."""
    z, y, x = np.mgrid[:2, :24, :40].astype(np.float32)
    field = y / 8 + x / 4 + z
    write_pixels(tmp_path / "x.nii.gz", field, (0.5, 2, 9))
    raw = read_raw(tmp_path / "x.nii.gz")
    plan = _plan(spacing=(1, 1), scheme="none")
    slices = plan.preprocess(raw)
    assert slices.shape == (2, 1, 48, 20)
    z, y, x = np.mgrid[:2, :48, :20]
    expected = ((y + 0.5) / 2 - 0.5) / 8 + (2 * x + 0.5) / 4 + z
    inside = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(slices[:, 0][inside], expected[inside], rtol=1e-6)
    np.testing.assert_allclose(
        plan.restore(expected[:, None].astype(np.float32), raw)[0][inside], field[inside], rtol=1e-6
    )
    mask = (field > 4).astype(np.int64)
    back = plan.restore(plan.preprocess_labels(mask, raw), raw)
    assert back.shape == mask.shape
    # Only columns were made fewer: each second one comes back exactly.
    np.testing.assert_array_equal(back[:, :, 1::2], mask[:, :, 1::2])
    same = _plan(spacing=(2.01, 0.497), scheme="none").preprocess(raw)
    np.testing.assert_array_equal(same[:, 0], field)


def test_splits_are_those_of_nnunet() -> None:
    """The numbers are scikit-learn's: KFold(5, shuffle=True, random_state=12345)."""
    names = [f"case_{i:03d}" for i in range(12)]
    splits = make_splits(names[::-1])
    held_out = [[int(name[-2:]) for name in split.val] for split in splits]
    assert held_out == [[0, 3, 8], [7, 10, 11], [6, 9], [1, 4], [2, 5]]
    for split in splits:
        assert sorted(split.train + split.val) == names
    assert make_splits(names, seed=1) != splits
    assert len(make_splits(names[:3])) == 3
    assert [len(split.val) for split in make_splits(names, folds=2)] == [6, 6]
    everything = Split(tuple(names), tuple(names))
    assert pick_split(splits, "all", names) == everything
    assert pick_split(splits, "4", names) == splits[4]
    for fold in (5, -1, "5", "x"):
        with pytest.raises(UserError, match=r"fold: got .* 0 to 4 or 'all'"):
            pick_split(splits, fold, names)
    with pytest.raises(UserError, match="fold 0 names the case 'case_"):
        pick_split(splits, 0, names[:3])
    with pytest.raises(UserError, match=r"got 1 labeled case,.*fold 'all'"):
        make_splits(["a"])


def test_splits_go_through_their_file(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    splits = make_splits([f"case_{i}" for i in range(7)])
    write_splits(path, splits)
    assert read_splits(path) == splits
    whole = path.read_text()
    for broken in (
        whole[:-30],
        "[]",
        "{}",
        "3",
        '[{"train": ["a"]}]',
        '[{"train": "a", "val": ["b"]}]',
        '[{"train": [1], "val": ["b"]}]',
        '[{"train": ["a", "b"], "val": ["b"]}]',
        '[{"train": [], "val": ["b"]}]',
    ):
        path.write_text(broken)
        with pytest.raises(UserError, match=r"splits_final\.json"):
            read_splits(path)
    path.unlink()
    with pytest.raises(UserError, match=r"splits_final\.json"):
        read_splits(path)


def test_nifti_keeps_its_geometry(tmp_path: Path) -> None:
    affine = np.array([[0, 0.5, 0, -7], [-0.6, 0, 0, 11], [0, 0, 2.5, 3], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(noise((9, 8, 4), 0), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(2.0, 5.0)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=2)
    nibabel.save(image, tmp_path / "x.nii.gz")
    raw = read_raw(tmp_path / "x.nii.gz")
    labels = np.random.default_rng(0).integers(0, 3, raw.pixels.shape[1:])
    write_labels(tmp_path / "out" / "x.nii.gz", labels, raw)
    written = nibabel.load(tmp_path / "out" / "x.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), labels.transpose(2, 1, 0))
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    for key in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(
            written.header[key], nibabel.load(tmp_path / "x.nii.gz").header[key]
        )
    again = read_labels(tmp_path / "out" / "x.nii.gz", raw)
    np.testing.assert_array_equal(again.labels, labels)


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 1, 1), (9, 8, 3, 1)])
def test_nifti_keeps_its_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "x.nii")
    raw = read_raw(tmp_path / "x.nii")
    labels = np.arange(raw.pixels.size).reshape(raw.pixels.shape[1:])
    write_labels(tmp_path / "y.nii", labels, raw)
    assert nibabel.load(tmp_path / "y.nii").shape == shape
    np.testing.assert_array_equal(read_labels(tmp_path / "y.nii", raw).labels, labels)


def test_masks_longer_than_nifti_1_allows(tmp_path: Path) -> None:
    shape = (40_000, 2, 1)
    nibabel.save(nibabel.Nifti2Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "x.nii.gz")
    raw = read_raw(tmp_path / "x.nii.gz")
    for like in (raw, replace(raw, geometry=None)):
        write_labels(tmp_path / "y.nii.gz", raw.pixels[0], like)
        np.testing.assert_array_equal(read_labels(tmp_path / "y.nii.gz", raw).labels, raw.pixels[0])


@pytest.mark.parametrize("shape", [(8, 9), (4, 8, 9)])
def test_tiff_keeps_its_resolution(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif",
        noise(shape, 0),
        photometric="minisblack",
        resolution=(2000, 1000.5),
        resolutionunit="CENTIMETER",
    )
    raw = read_raw(tmp_path / "x.tif")
    labels = np.random.default_rng(0).integers(0, 300, raw.pixels.shape[1:])
    labels[0, 0, 0] = 299
    write_labels(tmp_path / "y.tif", labels, raw)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        assert file.pages.first.dtype == np.uint16
        tags = file.pages.first.tags
        assert tags["ResolutionUnit"].value == 3
        assert tags["XResolution"].value[0] / tags["XResolution"].value[1] == 2000
        assert tags["YResolution"].value[0] / tags["YResolution"].value[1] == 1000.5
    np.testing.assert_array_equal(read_labels(tmp_path / "y.tif", raw).labels, labels)


def test_labels_are_written_as_the_users_masks_are(tmp_path: Path) -> None:
    dataset = open_dataset(write_bare(tmp_path / "data", ending=".jpg"))
    raw = read_raw(dataset.cases[0].images)
    assert mask_ending(raw.paths[0]) == ".png"
    write_labels(tmp_path / "x.png", blob((20, 24)).astype(np.int64), raw, dataset.values)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), blob((20, 24), 255))
    write_labels(tmp_path / "x.png", np.full((20, 24), 65535), raw)
    assert (read_labels(tmp_path / "x.png", raw).labels == 65535).all()


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    raw = read_raw(open_dataset(write_bare(tmp_path / "data")).cases[0].images)
    labels = np.zeros((20, 24), np.int64)
    for bad, words in (
        (labels[1:], "labels: got"),
        (labels - 1, "whole numbers"),
        (labels + 0.5, "whole numbers"),
        (labels + 65536, "more than a .png"),
    ):
        with pytest.raises(ValueError, match=words):
            write_labels(tmp_path / "x.png", bad, raw)
    with pytest.raises(ValueError, match="path: got"):
        write_labels(tmp_path / "x.jpg", labels, raw)
    with pytest.raises(ValueError, match="probabilities: got"):
        write_probabilities(tmp_path / "x.npz", np.zeros((2, 20, 23), np.float32), raw)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_probabilities(tmp_path: Path) -> None:
    raw = read_raw(open_dataset(write_bare(tmp_path / "data")).cases[0].images)
    probabilities = np.random.default_rng(0).random((2, 20, 24), np.float32)
    write_probabilities(tmp_path / "x.npz", probabilities, raw)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["probabilities"], probabilities[:, None])


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz"])
def test_predictions_that_cannot_be_written_leave_the_old_ones(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{ending}"
    write_pixels(path, blob((1, 8, 9) if "nii" in ending else (8, 9)))
    raw, before = read_raw(path), path.read_bytes()

    def full(source: object, target: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match=f"cannot write .*x{ending}: No space left"):
            write_labels(path, np.zeros((8, 9), np.int64), raw)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="cannot make the folder"):
        write_labels(path / "y" / f"x{ending}", np.zeros((8, 9), np.int64), raw)
