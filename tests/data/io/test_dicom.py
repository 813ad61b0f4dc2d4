"""DICOM: one file, many frames, and the slices of a series as a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from data_helpers import blob, noise, write_pixels
from image_files import dicom_slice, write_dicom, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from swin_umamba.data import (
    Split,
    group_images,
    make_plan,
    mask_ending,
    open_dataset,
    preprocess,
    read_case,
    read_labels,
    read_raw,
    write_labels,
)
from swin_umamba.data.io.formats import files_of
from swin_umamba.data.prepare.digests import FileDigests
from swin_umamba.data.prepare.folds import leak_warnings
from swin_umamba.data.prepare.state import Choices
from swin_umamba.errors import UserError

VOLUME = noise((5, 20, 24), 0).astype(np.int16)


def test_slices_are_sorted_by_their_place(tmp_path: Path) -> None:
    write_series(tmp_path / "case", VOLUME, RescaleSlope=2, RescaleIntercept=-1024)
    raw = read_raw(tmp_path / "case")
    np.testing.assert_array_equal(raw.pixels[0], 2 * VOLUME.astype(int) - 1024)
    assert raw.pixels.dtype == np.int32
    assert raw.spacing == (3.0, 0.5, 0.6)
    assert raw.origin == (-7.0, 11.0, 3.0)
    assert raw.direction == ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def test_slopes_that_are_not_whole(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x.dcm", VOLUME[0], RescaleSlope=0.25, RescaleIntercept=0.5)
    raw = read_raw(tmp_path / "x.dcm")
    assert raw.pixels.dtype == np.float32
    np.testing.assert_array_equal(raw.pixels[0, 0], VOLUME[0] * 0.25 + 0.5)
    assert raw.spacing == (3.0, 0.5, 0.6)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_masks_are_written_where_the_series_lies(tmp_path: Path, ending: str) -> None:
    tilted = [0.0, 0.8, 0.6, 0.0, 0.6, -0.8]
    normal = np.cross(tilted[:3], tilted[3:])
    for i, pixels in enumerate(VOLUME):
        place = (np.array([1.5, -20, 7]) + 2.5 * i * normal).tolist()
        write_dicom(
            tmp_path / "case" / f"{i}",
            pixels,
            at=i,
            ImagePositionPatient=place,
            ImageOrientationPatient=tilted,
        )
    raw = read_raw(tmp_path / "case")
    np.testing.assert_array_equal(raw.pixels[0], VOLUME)
    assert raw.spacing[0] == pytest.approx(2.5)
    assert mask_ending(raw.paths[0]) == ".nii.gz"
    labels = np.random.default_rng(0).integers(0, 3, VOLUME.shape)
    write_labels(tmp_path / f"mask{ending}", labels, raw)
    again = read_labels(tmp_path / f"mask{ending}", raw)
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_allclose(again.origin, (1.5, -20, 7), atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(again.direction[2], tilted[:3], atol=1e-6)  # type: ignore[index]


def test_frames_of_one_file(tmp_path: Path) -> None:
    """Enhanced DICOM: every frame has its own place, in any order."""
    data = dicom_slice(VOLUME[0])
    order = [2, 0, 4, 1, 3]
    data.NumberOfFrames = len(order)
    data.PixelData = VOLUME[order].tobytes()
    del data.ImagePositionPatient
    frames = []
    for i in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, 1.5 * i]
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    pydicom.dcmwrite(tmp_path / "x.dcm", data)
    raw = read_raw(tmp_path / "x.dcm")
    np.testing.assert_array_equal(raw.pixels[0], VOLUME)
    assert raw.spacing == (1.5, 0.5, 0.6)
    del data.PerFrameFunctionalGroupsSequence
    pydicom.dcmwrite(tmp_path / "x.dcm", data)
    np.testing.assert_array_equal(read_raw(tmp_path / "x.dcm").pixels[0], VOLUME[order])


def test_white_may_be_the_lowest_number(tmp_path: Path) -> None:
    pixels = VOLUME[0].astype(np.uint16) % 128
    write_dicom(
        tmp_path / "x.dcm",
        pixels,
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
    )
    np.testing.assert_array_equal(read_raw(tmp_path / "x.dcm").pixels[0, 0], 4095 - pixels)


def test_colours_and_compression(tmp_path: Path) -> None:
    pixels = noise((20, 24, 3), 0)
    write_dicom(tmp_path / "x.dcm", pixels, PlanarConfiguration=0)
    np.testing.assert_array_equal(
        read_raw(tmp_path / "x.dcm").pixels[:, 0], pixels.transpose(2, 0, 1)
    )
    data = dicom_slice(VOLUME[0])
    data.compress(RLELossless)
    pydicom.dcmwrite(tmp_path / "x.dcm", data)
    np.testing.assert_array_equal(read_raw(tmp_path / "x.dcm").pixels[0, 0], VOLUME[0])


def test_other_files_beside_a_series_are_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    write_series(folder, VOLUME)
    for name in (".DS_Store", "._00.dcm", "notes.txt"):
        (folder / name).write_bytes(b"x" * 200)
    report = dicom_slice(VOLUME[0], at=99.0)
    del report.PixelData
    pydicom.dcmwrite(folder / "report.dcm", report)
    np.testing.assert_array_equal(read_raw(folder).pixels[0], VOLUME)
    assert {path.name for path in files_of(folder)} >= {"00.dcm", "report.dcm"}
    assert not {path.name for path in files_of(folder)} & {".DS_Store", "._00.dcm", "notes.txt"}


def test_series_that_are_no_volume_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    write_series(folder, VOLUME)
    write_dicom(folder / "other.dcm", VOLUME[0], at=30.0, series="1.2.4")
    with pytest.raises(UserError, match=r"case holds 2 DICOM series"):
        read_raw(folder)
    write_dicom(folder / "other.dcm", VOLUME[0], at=30.0)
    with pytest.raises(UserError, match=r"case: the slices .* are 18 mm apart, others 3"):
        read_raw(folder)
    write_dicom(folder / "other.dcm", VOLUME[0], at=3.0)
    with pytest.raises(UserError, match=r"case: the slices .* are 0 mm apart, others 3"):
        read_raw(folder)
    write_dicom(folder / "other.dcm", VOLUME[0, :10], at=15.0)
    with pytest.raises(UserError, match="have different size"):
        read_raw(folder)
    write_dicom(
        folder / "other.dcm", VOLUME[0], at=15.0, ImageOrientationPatient=[0, 1, 0, 1, 0, 0]
    )
    with pytest.raises(UserError, match="have different orientation"):
        read_raw(folder)
    (folder / "other.dcm").write_bytes(b"no DICOM at all")
    with pytest.raises(UserError, match=r"other\.dcm is damaged or not an image"):
        read_raw(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no DICOM"):
        read_raw(tmp_path / "empty")


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    for i, pixels in enumerate(VOLUME):
        write_dicom(
            tmp_path / "case" / f"{i}.dcm", pixels, ImagePositionPatient=[0, i * 0.5, i * 3]
        )
    with pytest.raises(UserError, match="case was taken with a tilted gantry"):
        read_raw(tmp_path / "case")


def test_a_folder_of_dicom_files_is_a_volume_or_images(tmp_path: Path) -> None:
    volume, apart = tmp_path / "ct", tmp_path / "films"
    write_series(volume, VOLUME)
    report = dicom_slice(VOLUME[0], series="9")
    del report.PixelData, report.Rows, report.Columns
    pydicom.dcmwrite(volume / "report.dcm", report)
    (one,) = group_images(volume)
    assert (one.name, one.images) == ("ct", (volume,))
    assert len(group_images(volume, series=False)) == len(VOLUME) + 1
    with pytest.raises(UserError, match="ct is one image, but each here has 2"):
        group_images(volume, files=2)
    for i, pixels in enumerate(VOLUME):
        write_dicom(apart / f"{i}.dcm", pixels, series=f"1.{i}")
    assert [case.name for case in group_images(apart)] == list("01234")
    (apart / "3.dcm").rename(apart / "IM3")
    with pytest.raises(UserError, match=r"IM3 is a DICOM image, .* does not end with \.dcm"):
        group_images(apart)
    write_dicom(volume / "other.dcm", VOLUME[0], series="9")
    with pytest.raises(
        UserError, match=r"ct holds 2 DICOM series, as in .*: give each its own folder"
    ):
        group_images(volume)
    with pytest.raises(UserError, match=r"ct is not a dataset: expected dataset\.json"):
        open_dataset(volume)


def test_slices_with_masks_are_cases_each(tmp_path: Path) -> None:
    write_series(tmp_path / "images", VOLUME)
    for path in (tmp_path / "images").iterdir():
        write_pixels(tmp_path / "masks" / f"{path.stem}.png", blob(VOLUME.shape[1:]))
    assert len(open_dataset(tmp_path).cases) == len(VOLUME)


def test_folders_of_series_are_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / "images" / name, VOLUME)
        mask = tmp_path / "masks" / f"{name}.nii.gz"
        write_labels(mask, blob(VOLUME.shape), read_raw(tmp_path / "images" / name))
    (tmp_path / "images" / "empty").mkdir()
    write_pixels(tmp_path / "images" / "other" / "x.png", noise((3, 4), 0))
    assert [case.name for case in group_images(tmp_path / "images")] == ["a", "b"]
    dataset = open_dataset(tmp_path)
    raw, classes = read_case(dataset.cases[1], channels=1, values=dataset.values)
    np.testing.assert_array_equal(raw.pixels[0], VOLUME)
    np.testing.assert_array_equal(classes, blob(VOLUME.shape))
    cases = preprocess(dataset, make_plan(dataset), folder=tmp_path / "cache")
    assert len(cases) == 2 * len(VOLUME)
    splits = [Split(("a",), ("b",))]
    assert any("a" in text for text in leak_warnings(dataset, splits, Choices(), FileDigests()))
