"""Masks drawn over images, and the curves of a page."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swin_umamba.drawing.overlays import (
    ADDED,
    CONFUSED,
    CORRECT,
    IGNORED,
    MISSED,
    SIDE,
    Canvas,
    class_colour,
    overlay_path,
    png,
    save_overlay,
)
from swin_umamba.drawing.plots import ON_DARK, ON_LIGHT, curves_png

IMAGE = np.arange(12 * 16, dtype=np.uint16).reshape(1, 12, 16)


def _colour(layer: Image.Image, row: int, column: int, height: int = 12) -> tuple[str, int]:
    """Color and opacity in the middle of a pixel of the mask."""
    scale = layer.height / height
    at = round((column + 0.5) * scale), round((row + 0.5) * scale)
    *rgb, opacity = Image.open(io.BytesIO(png(layer))).convert("RGBA").getpixel(at)
    return "#" + "".join(f"{value:02x}" for value in rgb), opacity


def test_every_kind_of_error_has_its_colour() -> None:
    truth, prediction = np.zeros((2, 12, 16), np.int64)
    truth[2:6, 2:12] = 1
    prediction[2:6, 4:14] = 1
    prediction[2:6, 8:10] = 2
    truth[9:, 9:], prediction[9:, 9:] = -1, 1
    layer = Canvas(IMAGE).errors(truth, prediction)
    found = {name: _colour(layer, 4, x)[0] for name, x in (("m", 3), ("c", 6), ("w", 9), ("a", 13))}
    assert found == {"m": MISSED, "c": CORRECT, "w": CONFUSED, "a": ADDED}
    assert _colour(layer, 10, 12)[0] == IGNORED
    assert _colour(layer, 8, 3)[1] == 0


def test_classes_keep_their_colours_and_background_is_clear() -> None:
    labels = np.zeros((12, 16), np.int64)
    labels[1:5, 1:5], labels[6:11, 6:11] = 3, 1
    layer = Canvas(IMAGE).classes(labels)
    assert _colour(layer, 3, 3)[0] == class_colour(3)
    assert _colour(layer, 8, 8)[0] == class_colour(1)
    assert _colour(layer, 1, 12)[1] == 0
    assert len({class_colour(label) for label in range(1, 32)}) == 31


def test_pictures_have_square_pixels() -> None:
    assert Canvas(IMAGE).size == (SIDE, SIDE * 12 // 16)
    assert Canvas(IMAGE, spacing=(2.0, 1.0)).size == (round(SIDE * 16 / 24), SIDE)
    canvas = Canvas(IMAGE, spacing=(2.0, 1.0))
    assert canvas.input().size == canvas.classes(np.zeros((12, 16), np.int64)).size == canvas.size


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_channels_and_constant_ones_are_shown(channels: int) -> None:
    picture = Canvas(np.full((channels, 5, 5), 7, np.float32)).input()
    assert picture.mode == ("RGB" if channels >= 3 else "L")


def test_overlays_of_a_run_are_named_by_case_and_iteration(tmp_path: Path) -> None:
    mask = np.zeros((12, 16), np.int64)
    mask[3:8, 3:8] = 1
    save_overlay(tmp_path, "case", 250, IMAGE.astype(np.float32), mask, mask)
    (file,) = (tmp_path / "overlays" / "case").iterdir()
    assert file == overlay_path(tmp_path, "case", 250)
    assert file.name == "0000250.png"
    plain = np.asarray(Canvas(IMAGE).input().convert("RGB"), int)
    drawn = np.asarray(Image.open(file), int)
    changed = np.abs(drawn - plain).max(2) > 0
    scale = SIDE / 16
    inside = slice(round(3 * scale), round(8 * scale))
    assert changed[inside, inside].mean() > 0.9
    changed[inside, inside] = False
    assert not changed.any()


@pytest.mark.parametrize(
    "records",
    [
        [{"iteration": 1, "loss": None, "lr": 1e-4, "skipped": "the loss"}],
        [{"iteration": i, "loss": 1 / i, "lr": 1e-4, "dsc": 0.5} for i in range(1, 60)],
    ],
    ids=["nothing finite", "usual"],
)
def test_curves_are_transparent_and_follow_the_theme(records: list[dict]) -> None:
    light, dark = (
        np.asarray(Image.open(io.BytesIO(curves_png(records, theme))).convert("RGBA"))
        for theme in (ON_LIGHT, ON_DARK)
    )
    assert light.shape == dark.shape == (430, 1600, 4)
    assert (light[0, 0, 3], dark[0, 0, 3]) == (0, 0)
    titles = (slice(0, 45), slice(60, 500))
    brightness = [p[titles][p[titles][..., 3] > 250][:, :3].mean() for p in (light, dark)]
    assert brightness[0] < 80 < 180 < brightness[1]
