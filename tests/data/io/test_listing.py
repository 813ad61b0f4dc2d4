"""Which files of a folder are images, and how long the ending of a name is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blob, noise, write_bare, write_nnunet, write_pixels

from swin_umamba.data import group_images, open_dataset, read_labels, read_raw
from swin_umamba.data.io.listing import files_by_stem, image_files
from swin_umamba.errors import UserError
from swin_umamba.evaluate import evaluate_folder

LITTER = (".DS_Store", "._case_0.png", "._case_0_0000.png", ".hidden.png", "Thumbs.db")


def test_files_of_other_systems_are_skipped_everywhere(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "set")
    bare = write_bare(tmp_path / "bare")
    places = [folder / "imagesTr", folder / "labelsTr", bare / "images", bare / "masks"]
    for place in places:
        for name in LITTER:
            (place / name).write_bytes(b"\0\5\26\7")
    assert [path.name for path in image_files(places[1])] == [f"case_{i}.png" for i in range(3)]
    assert len(open_dataset(folder).cases) == len(open_dataset(bare).cases) == 3
    assert [case.name for case in group_images(places[0])] == ["case_0", "case_1", "case_2"]
    scores = evaluate_folder(folder / "labelsTr", folder)
    assert len(scores.cases) == 3


def test_only_files_are_images(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", noise((3, 4), 0))
    (tmp_path / "b.png").mkdir()
    os.mkfifo(tmp_path / "c.png")
    assert [path.name for path in image_files(tmp_path)] == ["a.png"]
    assert list(files_by_stem(tmp_path)) == ["a"]
    with pytest.raises(UserError, match="no file at"):
        read_raw(tmp_path / "c.png")


@pytest.mark.parametrize("images", [".PNG", ".Png", ".png"])
@pytest.mark.parametrize("labels", [".PNG", ".png"])
@pytest.mark.parametrize("channels", [1, 2])
def test_endings_in_any_case(tmp_path: Path, images: str, labels: str, channels: int) -> None:
    names = ("a", "b")[:channels]
    folder = write_nnunet(tmp_path, channels=names)
    write_pixels(folder / "instancesTr" / "case_1.PNG", blob((20, 24)))
    for path in [*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()]:
        path.rename(path.with_suffix(images if "imagesTr" in path.parts else labels))
    dataset = open_dataset(folder)
    assert [len(case.images) for case in dataset.cases] == 3 * [channels]
    assert [case.instances is not None for case in dataset.cases] == [False, True, False]
    assert read_labels(dataset.cases[0].mask or "").labels.any()


@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii", ".TIF", ".JPG", ".MHA", ".NRRD"])
def test_every_format_by_any_case(tmp_path: Path, ending: str) -> None:
    pixels = noise((2, 8, 9), 0)
    small, path = tmp_path / f"x{ending.lower()}", tmp_path / f"x{ending}"
    if ending in (".MHA", ".NRRD"):
        from image_files import write_itk

        write_itk(small, pixels)
    else:
        write_pixels(small, pixels if "nii" in ending.lower() else pixels[0])
    small.rename(path)
    found = read_raw(path).pixels
    assert found.shape[2:] == (8, 9)
    if ending != ".JPG":
        np.testing.assert_array_equal(found[0], pixels[: found.shape[1]])


def test_one_name_twice_is_refused_in_any_case(tmp_path: Path) -> None:
    for name in ("a.png", "a.PNG"):
        write_pixels(tmp_path / name, noise((3, 4), 0))
    with pytest.raises(UserError, match="have the same name"):
        group_images(tmp_path)
