"""Mask values: nearly integers, huge, 1-bit, and their classes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from data_helpers import blob, write_bare, write_nnunet, write_pixels
from PIL import Image

from swin_umamba.data import RawLabels, classes_of, open_dataset, read_case, read_labels, read_mask
from swin_umamba.data.io.labels import Numbers
from swin_umamba.errors import UserError


def _labels(values: np.ndarray, shown: tuple[int, ...] | None = None) -> RawLabels:
    return RawLabels(values.astype(np.int64), (1, 1, 1), Path("mask.png"), None, shown=shown)


@pytest.mark.parametrize("slope", [1 / 255, 1 / 3, 0.1, 4 / 32767, 1 / 7])
def test_labels_that_a_header_scales_are_rounded(tmp_path: Path, slope: float) -> None:
    mask = np.zeros((8, 8, 2))
    mask[2:4], mask[5:] = 1, 3
    image = nibabel.Nifti1Image(np.rint(mask / slope).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(slope, 0)
    nibabel.save(image, tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "x.nii.gz").labels, mask.transpose())


@pytest.mark.parametrize("value", [0.5, 1.0078125, np.inf, np.nan])
def test_labels_that_are_not_whole_are_refused(tmp_path: Path, value: float) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.full((5, 6), value, np.float32))
    with pytest.raises(UserError, match=rf"x\.tif holds float32, .*: {value} is more"):
        read_labels(tmp_path / "x.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64])
def test_the_largest_numbers(tmp_path: Path, dtype: type) -> None:
    most = np.iinfo(dtype).max
    mask = blob((8, 9)).astype(dtype) * dtype(most)
    tifffile.imwrite(tmp_path / "x.tif", mask)
    labels = read_labels(tmp_path / "x.tif")
    np.testing.assert_array_equal(labels.labels[0], mask.astype(np.int64))
    np.testing.assert_array_equal(classes_of(labels, (0, most))[0], blob((8, 9)))


def test_numbers_beyond_64_bits_are_refused_by_name(tmp_path: Path) -> None:
    for value, dtype in ((2**63, np.uint64), (2**64 - 1, np.uint64), (1e19, np.float64)):
        tifffile.imwrite(tmp_path / "x.tif", np.full((5, 6), value, dtype))
        with pytest.raises(UserError, match=r"x\.tif holds the label (9|1).*at most 2\^63 - 1"):
            read_labels(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "x.tif", np.full((5, 6), 2**63 - 1, np.uint64))
    assert (read_mask(tmp_path / "x.tif") == 2**63 - 1).all()


def test_huge_numbers_take_no_memory() -> None:
    labels = _labels(blob((64, 64)).astype(np.int64) * 300_000_000)
    tracemalloc.start()
    classes = classes_of(labels, (0, 300_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    np.testing.assert_array_equal(classes, blob((64, 64)))


def test_numbers_without_a_class_are_told(tmp_path: Path) -> None:
    labels = _labels(np.array([[0, 1, 5, 9, 2**40]]))
    with pytest.raises(
        UserError, match=r"mask\.png holds the label 5, 1099.*, expected one of 0, 1, 9"
    ):
        classes_of(labels, (0, 1), 9)
    assert classes_of(_labels(np.array([[0, 4, 1, 9]])), (0, 1, 4), 9).tolist() == [[0, 2, 1, -1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 1), 1), ((0, 255), 1), ((0, 128, 255), 2), ((0, 1, 2), 1), ((0, 7, 255), 2)],
)
def test_white_is_one_class_however_many_bits_it_has(
    values: tuple[int, ...], expected: int
) -> None:
    classes = classes_of(_labels(np.array([[0, 1]]), shown=(0, 255)), values)
    assert classes.tolist() == [[0, expected]]


def test_white_that_could_be_two_classes_is_told() -> None:
    white = _labels(np.array([[0, 1]]), shown=(0, 255))
    with pytest.raises(
        UserError, match=r"mask\.png has fewer than 8 bits .* 0, 1, shown as 0, 255"
    ):
        classes_of(white, (0, 1, 255))
    with pytest.raises(UserError, match=r"mask\.png holds the label 1 \(shown as 255\)"):
        classes_of(white, (0, 7))
    assert not classes_of(_labels(np.zeros((2, 2)), shown=(0, 255)), (0, 1, 255)).any()


@pytest.mark.parametrize(
    ("others", "expected"),
    [([], (0, 1)), ([255], (0, 255)), ([1], (0, 1)), ([0], (0, 1)), ([128, 255], (0, 128, 255))],
)
@pytest.mark.parametrize("first", [True, False])
def test_masks_of_1_bit_count_as_the_others_do(
    others: list[int], expected: tuple[int, ...], first: bool
) -> None:
    white = [_labels(np.array([[0, 1]]), shown=(0, 255))]
    plain = [_labels(np.array([[0, value]])) for value in others]
    numbers = Numbers()
    for raw in white + plain if first else plain + white:
        numbers.add(raw)
    assert numbers.values() == expected
    numbers.add(_labels(np.array([[7]])))
    numbers.add(_labels(np.array([[0, 1]]), shown=(0, 128)))
    if others == [128, 255]:
        assert numbers.values() == (0, 7, 128, 255)
    elif not others or others == [0]:
        with pytest.raises(UserError, match=r"mask\.png has fewer than 8 bits"):
            numbers.values()


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("kind", ["1 bit", "black and white", "white and black", "greys"])
def test_datasets_with_some_masks_of_few_bits(tmp_path: Path, ending: str, kind: str) -> None:
    mask = blob((20, 24))
    folder = write_bare(tmp_path / "bare", mask=ending)
    picture = Image.fromarray(mask * 255).convert("1")
    if kind != "1 bit":
        picture = Image.fromarray(1 - mask if kind == "white and black" else mask)
        white = [255] * 3
        picture.putpalette(white + [0] * 3 if kind == "white and black" else [0] * 3 + white)
        if kind == "greys":
            picture.putpalette([0, 0, 0, *white, 128, 128, 128])
    picture.save(folder / "masks" / f"scan_b{ending}")
    dataset = open_dataset(folder)
    assert dataset.values == (0, 255)
    for case in dataset.cases:
        _, classes = read_case(case, channels=3, values=dataset.values)
        assert classes is not None
        np.testing.assert_array_equal(classes[0], mask)


def test_masks_of_1_bit_with_a_dataset_json_of_255(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, labels={"background": 0, "fg": 255})
    for i in range(3):
        path = folder / "labelsTr" / f"case_{i}.png"
        write_pixels(path, blob((20, 24), 255))
        Image.open(path).convert("1").save(path)
    dataset = open_dataset(folder)
    _, classes = read_case(dataset.cases[0], channels=1, values=dataset.values)
    assert classes is not None
    np.testing.assert_array_equal(classes[0], blob((20, 24)))
