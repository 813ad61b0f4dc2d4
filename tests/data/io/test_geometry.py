"""Files that belong together must share one grid: compared axis by axis, in millimetres."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from data_helpers import blob, noise
from image_files import write_itk, write_series

from swin_umamba.data import RawImage, read_labels, read_raw
from swin_umamba.data.io.formats import NiftiGeometry
from swin_umamba.errors import UserError

SHAPE = (30, 32, 4)  # x, y, z


def _save(path: Path, affine: np.ndarray, codes: tuple[int, int] = (0, 2)) -> Path:
    image = nibabel.Nifti1Image(noise(SHAPE, 0), None)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nibabel.save(image, path)
    return path


def _pair(tmp_path: Path, image: np.ndarray, label: np.ndarray) -> tuple[Path, Path]:
    return _save(tmp_path / "i.nii.gz", image), _save(tmp_path / "l.nii.gz", label)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 50), (0.04, 0.04, 1), (10, 0.45, 0.45)])
@pytest.mark.parametrize("axis", range(3))
def test_mirrored_files_are_refused(tmp_path: Path, spacing: tuple[float, ...], axis: int) -> None:
    affine = np.diag([*spacing, 1.0])
    mirrored = affine.copy()
    mirrored[axis, axis] *= -1
    mirrored[axis, 3] = spacing[axis] * (SHAPE[axis] - 1)
    image, label = _pair(tmp_path, affine, mirrored)
    words = rf"l\.nii\.gz and .*i\.nii\.gz have different orientations: axis {'xyz'[axis]} runs .*"
    with pytest.raises(UserError, match=words + "both cover the same region.*Resample"):
        read_labels(label, read_raw(image))
    with pytest.raises(UserError, match=r"l\.nii\.gz and .*i\.nii\.gz have different orientations"):
        read_raw([image, label])
    mirrored[axis, 3] += 20 * spacing[axis]
    _save(label, mirrored)
    with pytest.raises(UserError, match="do not cover the same region"):
        read_labels(label, read_raw(image))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 5)])
def test_shifted_files_are_refused(tmp_path: Path, axis: int, spacing: tuple[float, ...]) -> None:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-120.3, 80.7, -1000.1)
    for distance, refused in (
        (50, True),
        (0.5 * spacing[axis], True),
        (0.01 * spacing[axis], False),
    ):
        shifted = affine.copy()
        shifted[axis, 3] -= distance
        image, label = _pair(tmp_path, affine, shifted)
        if refused:
            words = rf"l\.nii\.gz lies {distance:.4g} mm off .*i\.nii\.gz along axis {'xyz'[axis]}"
            with pytest.raises(UserError, match=words):
                read_labels(label, read_raw(image))
            with pytest.raises(UserError, match=words):
                read_raw([image, label])
        else:
            read_labels(label, read_raw(image))


def test_rounding_of_headers_is_accepted(tmp_path: Path) -> None:
    """Quaternions in float32 turn half circles by up to 5e-4."""
    angle = 0.3
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    for rotation in (np.eye(3), turn, turn @ np.diag([-1, -1, 1]), np.diag([1, -1, -1]) @ turn):
        affine = np.eye(4)
        affine[:3, :3] = rotation * (0.7, 0.7, 3)
        affine[:3, 3] = (-101.123456, 55.5, 1234.56789)
        image = _save(tmp_path / "i.nii.gz", affine, codes=(0, 1))
        label = _save(tmp_path / "l.nii.gz", affine, codes=(1, 0))
        read_labels(label, read_raw(image))


def test_swapped_and_turned_axes_are_refused(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    swapped = affine[:, [1, 0, 2, 3]]
    image, label = _pair(tmp_path, affine, swapped)
    with pytest.raises(UserError, match="different orientations: axis y runs"):
        read_labels(label, read_raw(image))
    small = np.deg2rad(2)
    turned = affine.copy()
    turned[:2, :2] = [[np.cos(small), -np.sin(small)], [np.sin(small), np.cos(small)]]
    with pytest.raises(UserError, match="2 degrees apart"):
        read_labels(_save(label, turned), read_raw(image))


def test_headers_without_a_place_say_nothing(tmp_path: Path) -> None:
    image = _save(tmp_path / "i.nii.gz", np.diag([1.0, 1.0, 1.0, 1.0]), codes=(0, 0))
    label = _save(tmp_path / "l.nii.gz", np.diag([1.0, -1.0, 1.0, 1.0]))
    assert read_raw(image).origin is None
    read_labels(label, read_raw(image))


def test_the_thickness_of_one_slice_does_not_matter(tmp_path: Path) -> None:
    flat = noise((1, 32, 30), 0)
    write_itk(tmp_path / "i.mha", flat, spacing=(5.0, 0.5, 0.5))
    write_itk(tmp_path / "l.mha", flat[0], spacing=(0.5, 0.5))
    read_labels(tmp_path / "l.mha", read_raw(tmp_path / "i.mha"))
    write_itk(tmp_path / "l.mha", flat[0], spacing=(0.5, 0.6))
    with pytest.raises(UserError, match=r"l\.mha has the spacing .* axis x has 0\.6 and 0\.5"):
        read_labels(tmp_path / "l.mha", read_raw(tmp_path / "i.mha"))


def test_formats_are_compared_with_each_other(tmp_path: Path) -> None:
    volume = noise((4, 32, 30), 0)
    place = {"spacing": (3.0, 0.5, 0.6), "origin": (-7.0, 11.0, 3.0)}
    write_itk(tmp_path / "a.mha", volume, **place)
    write_itk(tmp_path / "b.nrrd", volume, **place)
    write_itk(tmp_path / "c.nii.gz", volume, **place)
    write_series(tmp_path / "d", volume)
    raws = [read_raw(tmp_path / name) for name in ("a.mha", "b.nrrd", "c.nii.gz", "d")]
    for raw in raws:
        np.testing.assert_array_equal(raw.pixels[0], volume)
        np.testing.assert_allclose(raw.spacing, place["spacing"], rtol=1e-6)
        np.testing.assert_allclose(raw.origin, place["origin"], rtol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(raw.direction, np.eye(3)[::-1], atol=1e-6)  # type: ignore[arg-type]
        for name in ("a.mha", "b.nrrd", "c.nii.gz"):
            read_labels(tmp_path / name, raw)
    write_itk(tmp_path / "b.nrrd", volume, **{**place, "origin": (43.0, 11.0, 3.0)})
    for raw in raws:
        with pytest.raises(UserError, match=r"b\.nrrd lies 50 mm off .* along axis x"):
            read_labels(tmp_path / "b.nrrd", raw)


def test_images_made_by_hand_have_the_place_of_their_header(tmp_path: Path) -> None:
    raw = read_raw(_save(tmp_path / "i.nii.gz", np.diag([1.0, 1.0, 2.0, 1.0])))
    assert isinstance(raw.geometry, NiftiGeometry)
    assert RawImage(raw.pixels, raw.spacing, raw.paths, raw.geometry).origin == raw.origin
    assert RawImage(raw.pixels, raw.spacing, raw.paths, None).origin is None


def test_headers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    for affine, words in (
        (np.diag([1.0, np.nan, 1.0, 1.0]), "NaN or infinite"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "singular"),
    ):
        image = nibabel.Nifti1Image(blob((3, 4, 5)), np.eye(4))
        image.header["sform_code"] = 1
        for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
            image.header[name] = row
        path.write_bytes(image.header.binaryblock + bytes(4) + bytes(60))
        with pytest.raises(UserError, match=rf"x\.nii .*{words}"):
            read_raw(path)
    for spacing in (1e4, 1e-9):
        nibabel.save(nibabel.Nifti1Image(blob((3, 4, 5)), np.diag([1, 1, spacing, 1])), path)
        with pytest.raises(UserError, match=r"x\.nii has the spacing .* from 1e-06 to 1000"):
            read_raw(path)
        write_itk(tmp_path / "x.mha", blob((3, 4, 5)), spacing=(spacing, 1.0, 1.0))
        with pytest.raises(UserError, match=r"x\.mha has the spacing"):
            read_raw(tmp_path / "x.mha")


def test_two_spacings_in_one_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    pixels = noise(SHAPE, 0)

    def saved(pixdim: tuple[float, ...], affine: tuple[float, ...], turn: float = 0) -> Path:
        matrix = np.diag([*affine, 1.0])
        cos, sin = np.cos(turn), np.sin(turn)
        matrix[:2, :2] = np.array([[cos, -sin], [sin, cos]]) @ matrix[:2, :2]
        image = nibabel.Nifti1Image(pixels, matrix)
        image.header["pixdim"][1:4] = pixdim
        nibabel.save(image, path)
        return path

    with pytest.raises(UserError, match=r"x\.nii\.gz has two spacings along y: 1 in its pixdim"):
        read_raw(saved((0.7, 1, 3), (0.7, 0.7, 3), turn=0.3))
    with pytest.raises(UserError, match=r"along z: 3 in its pixdim but 1 in its affine \(sform"):
        read_raw(saved((1, 1, 3), (1, 1, 1)))
    # Rounded, or of no slice that has a next one.
    rounded = read_raw(saved((0.7031, 0.7031, 3), (0.703125, 0.703125, 3), turn=1))
    assert rounded.spacing == pytest.approx((3, 0.7031, 0.7031))
    pixels = pixels[:, :, :1]
    assert read_raw(saved((1, 1, 1), (1, 1, 5))).spacing == (1, 1, 1)
