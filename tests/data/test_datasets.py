"""Opening datasets: every supported layout, and every way in which they can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_helpers import blob, noise, write_bare, write_nnunet, write_pixels
from PIL import Image

from swin_umamba.data import (
    Dataset,
    group_images,
    open_dataset,
    read_case,
    read_labels,
    read_raw,
    take_fingerprint,
    write_labels,
)
from swin_umamba.data.io.formats import files_of
from swin_umamba.errors import UserError

ENDINGS = (".png", ".tif", ".nii", ".nii.gz")


def _read_all(dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    read = []
    for files in dataset.cases:
        raw, classes = read_case(
            files,
            channels=len(dataset.channel_names),
            values=dataset.values,
            ignore_label=dataset.ignore_label,
        )
        assert classes is not None
        read.append((raw.pixels, classes))
    return read


@pytest.mark.parametrize("ending", ENDINGS)
def test_nnunet_in_every_format(tmp_path: Path, ending: str) -> None:
    shape = (6, 20, 24) if "nii" in ending else (20, 24)
    dataset = open_dataset(write_nnunet(tmp_path / "Dataset001_Box", shape=shape, ending=ending))
    assert dataset.name == "Dataset001_Box"
    assert dataset.channel_names == ("grey",)
    assert (dataset.labels, dataset.values) == ({"background": 0, "blob": 1}, (0, 1))
    assert dataset.file_ending == ending
    assert [case.name for case in dataset.cases] == ["case_0", "case_1", "case_2"]
    for i, (pixels, classes) in enumerate(_read_all(dataset)):
        np.testing.assert_array_equal(pixels.reshape(shape), noise(shape, seed=10 * i))
        np.testing.assert_array_equal(classes.reshape(shape), blob(shape))
        assert pixels.dtype == np.uint8
        assert classes.dtype == np.int64
        assert pixels.shape == (1, *classes.shape)


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz"])
def test_channels_in_files_of_their_own(tmp_path: Path, ending: str) -> None:
    shape = (2, 8, 9) if "nii" in ending else (8, 9)
    dataset = open_dataset(
        write_nnunet(tmp_path, shape=shape, ending=ending, channels=("T1", "T2"))
    )
    assert dataset.files_per_image == 2
    pixels, _ = _read_all(dataset)[1]
    for c in range(2):
        np.testing.assert_array_equal(pixels[c].reshape(shape), noise(shape, seed=10 + c))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_all_channels_in_one_file(tmp_path: Path, ending: str) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, ending=ending, channels=("R", "G", "B"), files=1))
    assert dataset.files_per_image == 1
    pixels, _ = _read_all(dataset)[0]
    np.testing.assert_array_equal(pixels[:, 0].transpose(1, 2, 0), noise((20, 24, 3), seed=0))


def test_jpeg_images(tmp_path: Path) -> None:
    dataset = open_dataset(write_bare(tmp_path, ending=".jpg"))
    pixels, _ = _read_all(dataset)[0]
    assert pixels.shape == (3, 1, 20, 24)


def test_ignored_pixels_become_minus_one(tmp_path: Path) -> None:
    labels = {"background": 0, "blob": 1, "ignore": 2}
    folder = write_nnunet(tmp_path, labels=labels)
    mask = blob((20, 24))
    mask[0] = 2
    write_pixels(folder / "labelsTr" / "case_1.png", mask)
    dataset = open_dataset(folder)
    assert dataset.labels == {"background": 0, "blob": 1}
    assert dataset.ignore_label == 2
    _, classes = _read_all(dataset)[1]
    np.testing.assert_array_equal(classes[0], np.where(mask == 2, -1, mask.astype(int)))
    assert take_fingerprint(dataset).ignored == 24


def test_labels_that_skip_numbers_are_counted_through(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path, labels={"b": 4, "background": 0, "a": 1})
    write_pixels(folder / "labelsTr" / "case_0.png", blob((20, 24), 4))
    dataset = open_dataset(folder)
    assert dataset.labels == {"background": 0, "a": 1, "b": 2}
    assert dataset.values == (0, 1, 4)
    assert set(np.unique(_read_all(dataset)[0][1])) == {0, 2}


def test_regions_are_read_as_nnunet_has_them(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [3, 2], "enhancing": 3, "ignore": 4}
    folder = write_nnunet(tmp_path, labels=labels, regions_class_order=[1, 2, 3])
    dataset = open_dataset(folder)
    assert dataset.values == (0, 1, 2, 3)
    assert dataset.labels == {"background": 0, "label_1": 1, "label_2": 2, "enhancing": 3}
    assert dataset.regions == ((1, 2, 3), (2, 3), (3,))
    assert dataset.region_names == ("whole", "core", "enhancing")
    assert dataset.regions_class_order == (1, 2, 3)
    assert dataset.ignore_label == 4
    # Lists of one number are that number, unless there is a region.
    plain = open_dataset(write_nnunet(tmp_path, labels={"background": [0], "a": [1], "b": 5}))
    assert (plain.regions, plain.values) == (None, (0, 1, 5))


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "a", cases=4)
    for name in ("labelsTr/case_0.png", "labelsTr/case_2.png", "imagesTr/case_3_0000.png"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"^3 problems in .*a:") as caught:
        open_dataset(folder)
    for name in ("case_0_0000.png has no label", "case_2_0000.png has no", "case_3.png has no im"):
        assert name in str(caught.value)
    folder = write_bare(tmp_path / "b")
    for name in ("masks/scan_a.png", "images/scan_c.png"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"^2 problems") as caught:
        open_dataset(folder)
    assert "scan_a.png has no mask" in str(caught.value)
    folder = write_bare(tmp_path / "c")
    for name in ("masks/scan_a.png", "masks/scan_c.png"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"^2 problems") as caught:
        open_dataset(folder)
    assert "scan_a.png is damaged" in str(caught.value)
    assert "scan_c.png is damaged" in str(caught.value)


def test_cases_that_dataset_json_names(tmp_path: Path) -> None:
    write_nnunet(tmp_path / "data")
    listed = {"one": {"images": ["imagesTr/case_1_0000.png"], "label": "labelsTr/case_1.png"}}
    write_nnunet(tmp_path / "data", dataset=listed)
    dataset = open_dataset(tmp_path / "data")
    assert [case.name for case in dataset.cases] == ["one"]
    np.testing.assert_array_equal(_read_all(dataset)[0][0][0, 0], noise((20, 24), seed=10))


def test_instances_are_found(tmp_path: Path) -> None:
    write_nnunet(tmp_path / "a")
    write_pixels(tmp_path / "a" / "instancesTr" / "case_1.png", np.full((20, 24), 300, np.uint16))
    write_bare(tmp_path / "b")
    write_pixels(tmp_path / "b" / "instances" / "scan_b.tif", np.full((20, 24), 300, np.uint16))
    for folder in "ab":
        none, path, _ = [case.instances for case in open_dataset(tmp_path / folder).cases]
        assert none is None
        assert path is not None
        assert (read_labels(path).labels == 300).all()


@pytest.mark.parametrize(
    ("value", "values"), [(1, (0, 1)), (255, (0, 255)), (7, (0, 7))], ids=["one", "white", "seven"]
)
def test_bare_folders_take_classes_from_the_masks(
    tmp_path: Path, value: int, values: tuple[int, ...]
) -> None:
    dataset = open_dataset(write_bare(tmp_path / "mine", value=value))
    assert dataset.name == "mine"
    assert dataset.channel_names == ("R", "G", "B")
    assert dataset.labels == {"background": 0, "foreground": 1}
    assert dataset.values == values
    np.testing.assert_array_equal(_read_all(dataset)[2][1][0], blob((20, 24)))


def test_bare_masks_of_several_classes(tmp_path: Path) -> None:
    folder = write_bare(tmp_path, value=255)
    write_pixels(folder / "masks" / "scan_b.png", blob((20, 24), 128))
    dataset = open_dataset(folder)
    assert dataset.labels == {"background": 0, "label_128": 1, "label_255": 2}
    assert [classes.max() for _, classes in _read_all(dataset)] == [2, 1, 2]


def test_bare_frames_with_numbers_are_no_channels(tmp_path: Path) -> None:
    for i in range(3):
        write_pixels(tmp_path / "images" / f"frame_{i:04d}.png", noise((8, 9), seed=i))
        write_pixels(tmp_path / "masks" / f"frame_{i:04d}.png", blob((8, 9)))
    dataset = open_dataset(tmp_path)
    assert dataset.files_per_image == 1
    # A trailing _0000 counts as nnU-Net's.
    assert [case.name for case in dataset.cases] == ["frame", "frame_0001", "frame_0002"]
    assert dataset.cases[0].mask == tmp_path / "masks" / "frame_0000.png"


def test_bare_channels(tmp_path: Path) -> None:
    for i in range(2):
        for c in range(3):
            write_pixels(tmp_path / "images" / f"x{i}_{c:04d}.tif", noise((8, 9), seed=c))
        write_pixels(tmp_path / "masks" / f"x{i}.tif", blob((8, 9)))
    dataset = open_dataset(tmp_path)
    assert dataset.files_per_image == 3
    assert [len(case.images) for case in dataset.cases] == [3, 3]


def test_images_alone_are_grouped_as_in_training(tmp_path: Path) -> None:
    for name in ("a_0000.png", "a_0001.png", "b_0000.png", "b_0001.png", ".hidden.png", "x.txt"):
        (tmp_path / name).touch()
    apart = group_images(tmp_path)
    assert [case.name for case in apart] == ["a", "a_0001", "b", "b_0001"]
    pairs = group_images(tmp_path, files=2)
    assert [case.name for case in pairs] == ["a", "b"]
    assert [path.name for path in pairs[1].images] == ["b_0000.png", "b_0001.png"]
    assert group_images(tmp_path, ending=".tif") == []
    with pytest.raises(UserError, match=r"b_0001\.png.*no channel _0002|a_0001.*_0002"):
        group_images(tmp_path, files=3)
    (tmp_path / "a_0002.png").touch()
    with pytest.raises(UserError, match=r"a_0002\.png is channel 3 of a, expected 2"):
        group_images(tmp_path, files=2)
    (tmp_path / "a_0001.png").unlink()
    with pytest.raises(UserError, match=r"a_0002\.png is there, but not channel _0001"):
        group_images(tmp_path, files=2)
    (tmp_path / "b_0000.tif").touch()
    with pytest.raises(UserError, match=r"b_0000\.(png|tif) are? .*|b_0000\.tif and b_0000\.png"):
        group_images(tmp_path)


def test_palette_masks_give_their_indices_and_palette_images_their_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(blob((20, 24), 2))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png").labels[0], blob((20, 24), 2))
    pixels = read_raw(tmp_path / "x.png").pixels
    np.testing.assert_array_equal(pixels[1, 0], blob((20, 24), 255))
    assert not pixels[[0, 2]].any()


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    colour = np.concatenate([noise((8, 9, 3), 0), np.full((8, 9, 1), 255, np.uint8)], axis=2)
    Image.fromarray(colour).save(tmp_path / "x.png")
    assert read_raw(tmp_path / "x.png").pixels.shape == (3, 1, 8, 9)
    colour[0, 0, 3] = 0
    Image.fromarray(colour).save(tmp_path / "x.png")
    assert read_raw(tmp_path / "x.png").pixels.shape == (4, 1, 8, 9)


def test_tiff_volumes_and_their_spacing(tmp_path: Path) -> None:
    volume = noise((5, 8, 9), seed=0)
    tifffile.imwrite(tmp_path / "x_0000.tif", volume, photometric="minisblack")
    raw = read_raw(tmp_path / "x_0000.tif")
    np.testing.assert_array_equal(raw.pixels[0], volume)
    assert raw.spacing == (1.0, 1.0, 1.0)
    (tmp_path / "x.json").write_text('{"spacing": [3, 0.5, 0.25]}')
    assert read_raw(tmp_path / "x_0000.tif").spacing == (3.0, 0.5, 0.25)
    (tmp_path / "x.json").write_text('{"spacing": [3, 0.5]}')
    with pytest.raises(UserError, match=r"x\.json"):
        read_raw(tmp_path / "x_0000.tif")


def test_masks_of_tiff_volumes_keep_the_spacing(tmp_path: Path) -> None:
    """Each has its own, whatever number its name ends with."""
    (tmp_path / "images").mkdir()
    spacings = {"x": (3.0, 0.5, 0.25), "x_0001": (2.0, 1.0, 1.0), "x_0002": (1.0, 1.0, 1.0)}
    for name, spacing in spacings.items():
        image, mask = tmp_path / "images" / f"{name}.tif", tmp_path / f"{name}.tif"
        tifffile.imwrite(image, noise((5, 8, 9), seed=0), photometric="minisblack")
        image.with_suffix(".json").write_text(json.dumps({"spacing": spacing}))
        raw = read_raw(image)
        assert raw.spacing == spacing
        write_labels(mask, blob((5, 8, 9)), raw)
        assert read_labels(mask, raw).spacing == spacing
        assert files_of(mask)[0] == mask
    flat = tmp_path / "flat.tif"
    write_labels(flat, blob((8, 9)), replace(raw, pixels=raw.pixels[:, :1], spacing=(2, 2, 2)))
    assert files_of(flat) == (flat,)


def test_fingerprint(tmp_path: Path) -> None:
    shape = (4, 20, 24)
    folder = write_nnunet(tmp_path, cases=2, shape=shape, ending=".nii.gz")
    inside = blob(shape).astype(bool)
    write_pixels(folder / "imagesTr" / "case_1_0000.nii.gz", 100 + 50 * blob(shape), (1, 2, 3))
    write_pixels(folder / "labelsTr" / "case_1.nii.gz", blob(shape), (1, 2, 3))
    found = take_fingerprint(open_dataset(folder))
    assert found.cases == ("case_0", "case_1")
    assert found.shapes == found.cropped == (shape, shape)
    assert found.relative_size == 1
    assert found.spacings == ((1, 1, 1), (3, 2, 1))
    assert found.pixels == (2 * (~inside).sum(), 2 * inside.sum())
    assert sum(found.frequencies) == pytest.approx(1)
    expected = np.concatenate([noise(shape, 0)[inside], np.full(inside.sum(), 150)])
    (intensity,) = found.intensities
    assert intensity.mean == pytest.approx(expected.mean())
    assert intensity.std == pytest.approx(expected.std())
    assert (intensity.low, intensity.median, intensity.high) == pytest.approx(
        tuple(np.percentile(expected, (0.5, 50, 99.5)))
    )


# What to break in a valid dataset, and what the error must name.
Breaker = Callable[[Path], object]
IMAGE, LABEL = "imagesTr/case_1_0000.png", "labelsTr/case_1.png"


def _facts(**changes: object) -> Breaker:
    def change(folder: Path) -> None:
        facts = json.loads((folder / "dataset.json").read_text()) | changes
        (folder / "dataset.json").write_text(json.dumps(facts))

    return change


def _cut(name: str, share: float = 0.6) -> Breaker:
    def cut(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return cut


def _put(name: str, pixels: np.ndarray) -> Breaker:
    return lambda folder: write_pixels(folder / name, pixels)


BROKEN: dict[str, tuple[Breaker, str]] = {
    "label missing": (
        lambda f: (f / LABEL).unlink(),
        r"case_1_0000\.png has no label.*case_1\.png",
    ),
    "image missing": (lambda f: (f / IMAGE).unlink(), r"labelsTr/case_1\.png has no image"),
    "label larger": (_put(LABEL, blob((20, 25))), r"labelsTr/case_1\.png is 20x25 .*20x24"),
    "unknown label": (_put(LABEL, blob((20, 24), 3)), r"labelsTr/case_1\.png .*label 3, .* 0, 1"),
    "color label": (_put(LABEL, blob((20, 24, 3))), r"labelsTr/case_1\.png has 3 channels"),
    "image truncated": (_cut(IMAGE), r"case_1_0000\.png is damaged"),
    "label truncated": (_cut(LABEL), r"labelsTr/case_1\.png is damaged"),
    "image empty": (_cut(IMAGE, 0), r"case_1_0000\.png is damaged"),
    "image of text": (lambda f: (f / IMAGE).write_text("hello"), r"case_1_0000\.png is damaged"),
    "channel too many": (_put(IMAGE, noise((20, 24, 3), 0)), r"case_1_0000\.png: got 3 channels"),
    "no imagesTr": (lambda f: (f / "imagesTr").rename(f / "images"), r"no folder at .*imagesTr"),
    "no labelsTr": (lambda f: (f / "labelsTr").rename(f / "labels"), r"no folder at .*labelsTr"),
    "other ending": (_facts(file_ending=".tif"), r"imagesTr holds no images that end with \.tif"),
    "unknown ending": (_facts(file_ending=".xyz"), r"dataset\.json: file_ending is '\.xyz'"),
    "no ending": (_facts(file_ending=None), r"dataset\.json: file_ending is None"),
    "second channel": (_facts(channel_names={"0": "a", "1": "b"}), r"case_\d_0000\.png: got 1 ch"),
    "no channels": (_facts(channel_names={}), r"dataset\.json: channel_names"),
    "channels from 1": (_facts(channel_names={"1": "a"}), r"dataset\.json: channel_names"),
    "json truncated": (_cut("dataset.json"), r"dataset\.json cannot be read as a dataset"),
    "json a list": (
        lambda f: (f / "dataset.json").write_text("[]"),
        r"dataset\.json cannot be read as a dataset: got a list",
    ),
    "no labels": (_facts(labels={}), r"dataset\.json: labels"),
    "regions without an order": (
        _facts(labels={"background": 0, "whole": [1, 2]}),
        r"dataset\.json: regions_class_order is None, expected .* 1 regions",
    ),
    "an order of other numbers": (
        _facts(labels={"background": 0, "whole": [1, 2]}, regions_class_order=[3]),
        r"dataset\.json: regions_class_order is \[3\]",
    ),
    "an order too long": (
        _facts(labels={"background": 0, "whole": [1, 2]}, regions_class_order=[1, 2]),
        r"dataset\.json: regions_class_order is \[1, 2\]",
    ),
    "region with background": (
        _facts(labels={"background": 0, "a": [0, 2]}, regions_class_order=[2]),
        r"dataset\.json: a region holds 0",
    ),
    "regions without background": (
        _facts(labels={"a": [1, 2]}, regions_class_order=[2]),
        r"dataset\.json: labels has no 'background' as 0",
    ),
    "ignored region": (
        _facts(labels={"background": 0, "a": 1, "ignore": [2, 3]}),
        r"label 'ignore' is \[2, 3\]",
    ),
    "ignored part of a region": (
        _facts(labels={"background": 0, "a": [1, 2], "ignore": 2}, regions_class_order=[1]),
        r"the number 2 is 'ignore' and part of another label",
    ),
    "labels of nnU-Net v1": (_facts(labels={"0": "background"}), r"nnU-Net v1"),
    "no background": (_facts(labels={"a": 1, "b": 2}), r"dataset\.json: labels .* background"),
    "another background": (_facts(labels={"background": 1, "a": 0}), r"the background as 0"),
    "one number twice": (_facts(labels={"background": 0, "a": 1, "b": 1}), r"two labels"),
    "negative label": (_facts(labels={"background": 0, "a": -1}), r"label 'a' is -1"),
    "names no file": (
        _facts(dataset={"x": {"images": ["imagesTr/x.png"], "label": LABEL}}),
        r"no file at .*imagesTr/x\.png",
    ),
    "names nonsense": (_facts(dataset=["x"]), r"dataset\.json: dataset is not"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_datasets_are_refused_by_name(tmp_path: Path, what: str) -> None:
    folder = write_nnunet(tmp_path / "data")
    breaker, message = BROKEN[what]
    breaker(folder)
    with pytest.raises(UserError, match=message) as caught:
        take_fingerprint(open_dataset(folder))
    # All three cases lack the second channel.
    assert str(caught.value).count("\n") == (3 if what == "second channel" else 0)


BARE_BROKEN: dict[str, tuple[Breaker, str]] = {
    "mask missing": (
        lambda f: (f / "masks/scan_b.png").unlink(),
        r"images/scan_b\.png has no mask",
    ),
    "image missing": (lambda f: (f / "images/scan_b.png").unlink(), r"masks/scan_b\.png has no im"),
    "two of one name": (_put("images/scan_b.tif", noise((20, 24), 0)), r"have the same name"),
    "masks all 0": (
        lambda f: [write_pixels(p, np.zeros((20, 24), np.uint8)) for p in (f / "masks").iterdir()],
        r"masks/scan_a\.png .* 0 everywhere",
    ),
    "mask of noise": (_put("masks/scan_b.png", noise((20, 24), 0)), r"scan_b\.png.* more than 32"),
    "mask in color": (_put("masks/scan_b.png", noise((20, 24, 3), 0)), r"masks/scan_b\.png has 3"),
    "one image gray": (_put("images/scan_b.png", noise((20, 24), 0)), r"images/scan_b\.png: got 1"),
    "no images": (
        lambda f: [path.unlink() for path in (f / "images").iterdir()],
        r"images holds no images",
    ),
    "no masks folder": (lambda f: (f / "masks").rename(f / "mask"), r"is not a dataset"),
}


@pytest.mark.parametrize("what", BARE_BROKEN)
def test_broken_bare_folders_are_refused_by_name(tmp_path: Path, what: str) -> None:
    folder = write_bare(tmp_path / "data")
    breaker, message = BARE_BROKEN[what]
    breaker(folder)
    with pytest.raises(UserError, match=message) as caught:
        take_fingerprint(open_dataset(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".nii", ".nii.gz"])
def test_truncated_files_of_every_format(
    tmp_path: Path, ending: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"x{ending}"
    write_pixels(path, noise((4, 20, 24) if "nii" in ending else (20, 24), 0))
    _cut(path.name, share)(tmp_path)
    for read in (read_raw, read_labels):
        with pytest.raises(UserError, match=f"x{ending} is damaged") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_volumes_that_do_not_lie_alike_are_refused(tmp_path: Path) -> None:
    import nibabel

    image, mask = tmp_path / "x_0000.nii.gz", tmp_path / "x.nii.gz"
    write_pixels(image, noise((4, 8, 9), 0), (1, 1, 3))
    write_pixels(mask, blob((4, 8, 9)), (1, 1, 2))
    with pytest.raises(UserError, match=r"x\.nii\.gz has the spacing"):
        read_labels(mask, read_raw(image))
    flipped = np.diag([-1.0, 1, 3, 1])
    nibabel.save(nibabel.Nifti1Image(blob((4, 8, 9)).transpose(), flipped), mask)
    with pytest.raises(UserError, match=r"x\.nii\.gz and .* have different orientations"):
        read_labels(mask, read_raw(image))


@pytest.mark.parametrize("shape", [(9, 8, 4, 2), (9, 8, 4, 1, 3)])
def test_nifti_of_several_volumes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "x.nii.gz")
    with pytest.raises(UserError, match=r"x\.nii\.gz has shape .* expected a volume"):
        read_raw(tmp_path / "x.nii.gz")


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*none"):
        open_dataset(tmp_path / "none")
    with pytest.raises(UserError, match=r"is not a dataset: expected dataset\.json"):
        open_dataset(tmp_path)


def test_the_real_sets(shared_dir: Path) -> None:
    for folder, cases, labels in (
        ("Dataset801_Nuclei", 87, {"background": 0, "interior": 1, "boundary": 2}),
        ("Dataset802_Polyps", 97, {"background": 0, "polyp": 1}),
        ("Dataset804_Hippocampus", 60, {"background": 0, "Anterior": 1, "Posterior": 2}),
    ):
        dataset = open_dataset(shared_dir / "data" / folder)
        assert len(dataset.cases) == cases
        assert dataset.labels == labels
        assert all((case.instances is None) == ("Nuclei" not in folder) for case in dataset.cases)
        take_fingerprint(dataset, dataset.cases[:4])
