"""Image sources: class folders, CSV files, archives, and segmentation datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_bare, write_pixels
from PIL import Image
from pretrain_helpers import coloured_tiles, tiny_pretraining, write_archive

from swin_umamba.errors import UserError
from swin_umamba.pretrain import PretrainConfig, Tiles, read_tiles
from swin_umamba.pretrain import reading as reading_module

CONFIG = tiny_pretraining(tile_size=16)
PIXELS = CONFIG.changed({"task": "pixels"})
COLOURS = {"green": (0, 200, 0), "red": (220, 0, 0)}


def _picture(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (20, 30)) -> None:
    write_pixels(path, np.full((*size, len(colour)), colour, np.uint8))


def _folder_of_classes(folder: Path, per_class: int = 2) -> Path:
    for name, colour in COLOURS.items():
        for i in range(per_class):
            _picture(folder / name / f"{i}.png", colour)
    return folder


def _check_colours(tiles: Tiles) -> None:
    assert tiles.pixels.shape == (4, 3, 16, 16)
    assert tiles.labels is not None
    for image, label in zip(tiles.pixels, tiles.labels, strict=True):
        assert (image == np.array(COLOURS[tiles.classes[label]])[:, None, None]).all()


def test_a_folder_for_each_class(tmp_path: Path, cache: Path) -> None:
    folder = _folder_of_classes(tmp_path / "images")
    tiles = read_tiles(folder, CONFIG, threads=2)
    assert tiles.classes == ("green", "red")
    assert tiles.labels is not None
    assert tiles.labels.tolist() == [0, 0, 1, 1]
    assert tiles.name == "images"
    _check_colours(tiles)


def test_images_are_decoded_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder_of_classes(tmp_path / "images")
    first = read_tiles(folder, CONFIG)

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    with monkeypatch.context() as patch:
        patch.setattr(reading_module, "tile_of", refuse)
        again = read_tiles(folder, CONFIG)
    assert (again.pixels == first.pixels).all()
    assert again.digest == first.digest
    _picture(folder / "red" / "0.png", (221, 0, 0))
    changed = read_tiles(folder, CONFIG)
    assert changed.digest != first.digest
    assert changed.pixels[2, 0, 0, 0] == 221


def test_train_and_val_folders_are_the_split(tmp_path: Path) -> None:
    _folder_of_classes(tmp_path / "images" / "train")
    _folder_of_classes(tmp_path / "images" / "val", per_class=1)
    tiles = read_tiles(tmp_path / "images", CONFIG)
    train, held_out = tiles.split(0.5, seed=0)
    assert train.tolist() == [0, 1, 2, 3]
    assert held_out.tolist() == [4, 5]
    _picture(tmp_path / "images" / "val" / "blue" / "0.png", (0, 0, 9))
    with pytest.raises(UserError, match="val has the class blue, which train lacks"):
        read_tiles(tmp_path / "images", CONFIG)


def test_csv_names_images_and_labels(tmp_path: Path) -> None:
    _folder_of_classes(tmp_path)
    table = tmp_path / "images.csv"
    rows = [f"{name}/{i}.png,{name},x" for name in COLOURS for i in range(2)]
    table.write_text("\n".join(["image,label,note", *rows]), encoding="utf-8-sig")
    _check_colours(read_tiles(table, CONFIG))
    assert read_tiles(table, PIXELS).labels is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image\nred/0.png", "lacks the column label"),
        ("image,label\nred/9.png,red", "row 2: no image at"),
        ("image,label\nred/0.png,", "row 2: expected values for image and label"),
        ("image,label\nred/0.png,red", "found 1 classes"),
        ('image,label\n"red', "cannot be read as CSV"),
    ],
)
def test_csv_files_are_checked(tmp_path: Path, text: str, words: str) -> None:
    _folder_of_classes(tmp_path)
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_tiles(tmp_path / "images.csv", CONFIG)


def test_images_without_classes_are_found_in_all_folders(tmp_path: Path) -> None:
    write_pixels(tmp_path / "images" / "a.png", np.full((16, 40), 7, np.uint8))
    write_pixels(tmp_path / "images" / "deep" / "b.png", np.full((16, 40), 9, np.uint8))
    (tmp_path / "images" / ".hidden.png").write_bytes(b"none")
    tiles = read_tiles(tmp_path / "images", PIXELS)
    assert tiles.pixels.shape == (2, 1, 16, 16)
    assert tiles.pixels[:, 0, 0, 0].tolist() == [7, 9]
    assert tiles.classes == ()


@pytest.mark.parametrize(("channels", "expected"), [(None, 3), (1, 1), (3, 3)])
def test_channels_are_those_asked_for(tmp_path: Path, channels: int | None, expected: int) -> None:
    folder = _folder_of_classes(tmp_path / "images")
    config = CONFIG.changed({"in_channels": channels})
    assert read_tiles(folder, config).channels == expected
    archive = write_archive(tmp_path / "archive", coloured_tiles())
    assert read_tiles(archive, config).channels == expected


def test_archives_of_an_array(tmp_path: Path) -> None:
    made = coloured_tiles()
    archive = write_archive(tmp_path / "archive", made)
    tiles = read_tiles(archive, CONFIG)
    assert (tiles.pixels == made.pixels).all()
    assert tiles.labels is not None
    assert (tiles.labels == made.labels).all()
    assert tiles.classes == ("0", "1", "2")
    (archive / "classes.txt").write_text("red\ngreen\nblue\n")
    assert read_tiles(archive, CONFIG).classes == made.classes
    assert read_tiles(archive, PIXELS).labels is None
    (archive / "labels.npy").unlink()
    assert len(read_tiles(archive, PIXELS)) == len(made)
    with pytest.raises(UserError, match=r"labels.npy is missing"):
        read_tiles(archive, CONFIG)


def test_archives_of_mosaics(tmp_path: Path) -> None:
    """Two sheets of 2 rows by 3 tiles; the tenth comes after the second."""
    made = coloured_tiles(12)
    for number, part in (("2", made.pixels[:6]), ("10", made.pixels[6:])):
        rows = part.reshape(2, 3, 3, 16, 16).transpose(0, 3, 1, 4, 2).reshape(32, 48, 3)
        write_pixels(tmp_path / "archive" / f"mosaic_{number}.png", rows)
    np.save(tmp_path / "archive" / "labels.npy", made.labels)
    tiles = read_tiles(tmp_path / "archive", CONFIG)
    assert (tiles.pixels == made.pixels).all()
    np.save(tmp_path / "archive" / "labels.npy", np.zeros(11, np.uint8))
    with pytest.raises(UserError, match="expected a square number"):
        read_tiles(tmp_path / "archive", CONFIG)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("labels.npy", np.zeros(23, np.uint8), "24 tiles and 23 labels"),
        ("labels.npy", np.full(24, -1), "holds -1 to -1"),
        ("labels.npy", np.zeros((24, 2), np.uint8), "expected whole numbers"),
        ("tiles.npy", np.zeros((24, 8, 9, 3), np.uint8), "expected uint8"),
        ("tiles.npy", np.array([None], object), "damaged or not an image"),
    ],
)
def test_archives_are_checked(tmp_path: Path, name: str, array: np.ndarray, words: str) -> None:
    archive = write_archive(tmp_path / "archive", coloured_tiles())
    np.save(archive / name, array, allow_pickle=True)
    with pytest.raises(UserError, match=words):
        read_tiles(archive, CONFIG)


def test_a_segmentation_dataset_gives_its_training_images(tmp_path: Path) -> None:
    dataset = write_bare(tmp_path / "scans", cases=6)
    with pytest.raises(UserError, match="images have no classes: --labels none"):
        read_tiles(dataset, CONFIG)
    tiles = read_tiles(dataset, PIXELS)
    # 20x24 in squares of 16, at most 8 apart.
    assert tiles.pixels.shape == (6 * 4, 3, 16, 16)
    assert tiles.pixels.dtype == np.half
    assert abs(float(tiles.pixels.astype(np.float64).mean())) < 0.1
    train, held_out = tiles.split(0.0, seed=0)
    assert len(train) + len(held_out) == 24
    assert len(held_out) in (4, 8)  # one validation case or two
    assert tiles.statistics() == ((0.0,) * 3, (1.0,) * 3)
    small = PIXELS.changed({"tile_size": 64, "fold": "all"})
    whole = read_tiles(dataset, small)
    assert whole.pixels.shape == (6, 3, 64, 64)
    assert whole.held_out is None


def test_images_of_16_bits_and_alpha(tmp_path: Path) -> None:
    write_pixels(tmp_path / "images" / "a.png", np.full((16, 16), 257 * 40, np.uint16))
    rgba = np.full((16, 16, 4), (1, 2, 3, 128), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "images" / "b.png")
    tiles = read_tiles(tmp_path / "images", PIXELS)
    assert tiles.pixels[0, :, 0, 0].tolist() == [40, 40, 40]
    assert tiles.pixels[1, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("config", [CONFIG, PIXELS])
def test_what_holds_no_images_is_named(tmp_path: Path, config: PretrainConfig) -> None:
    with pytest.raises(UserError, match="no file or folder at"):
        read_tiles(tmp_path / "nowhere", config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty(:| holds no images)"):
        read_tiles(tmp_path / "empty", config)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken|a\.png"):
        read_tiles(tmp_path / "broken", config)
    assert not list(tmp_path.glob("cache/tiles/*/facts.json"))
