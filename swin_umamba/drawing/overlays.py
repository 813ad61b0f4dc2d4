"""Masks drawn over images: classes, and differences between prediction and ground truth."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from swin_umamba.common.names import file_name
from swin_umamba.drawing.png import png as png
from swin_umamba.drawing.png import write_png

# Distinguishable with all common kinds of color blindness, on dark and bright images.
CORRECT, ADDED, MISSED, CONFUSED = "#2ec4a6", "#ff9f1c", "#e5399e", "#7b61ff"
CLASS_COLOURS = ("#4cc9f0", "#f7b32b", "#2ec4a6", "#e5399e", "#9b7bff", "#f46036", "#c5e063")
IGNORED = "#808080"
FILL, EDGE = 0.34, 1.0  # opacity
EDGE_WIDTH = 2  # pixels of the picture
SIDE = 448  # pixels of a picture's longer side
FOLDER = "overlays"

Labels = npt.NDArray[np.int64]


def class_colour(label: int) -> str:
    """The color of a class, with 1 the first after background."""
    if label <= len(CLASS_COLOURS):
        return CLASS_COLOURS[label - 1]
    rgb = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.7, 0.95)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)


def displayable(image: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(H, W) gray, or (H, W, 3) for images (C, H, W) with 3 or more channels, scaled to 0..1."""
    channels = image[:3] if image.shape[0] >= 3 else image[:1]
    low, high = np.percentile(channels, (0.5, 99.0))
    stretched = np.clip((channels - low) / max(high - low, 1e-6), 0, 1).astype(np.float64)
    shown: npt.NDArray[np.float64]
    shown = stretched.transpose(1, 2, 0) if len(stretched) == 3 else stretched[0]
    return shown


class Canvas:
    """Draws one image, with masks over it, at one size as PNG.

    image: (C, H, W) of a real dtype. spacing: of rows and columns; the result has square pixels and
    a longer side of `side`.
    """

    def __init__(
        self, image: npt.NDArray[Any], spacing: Sequence[float] = (1.0, 1.0), side: int = SIDE
    ) -> None:
        self._image = image
        extent = np.array(image.shape[1:]) * np.array(spacing)
        height, width = np.maximum(np.round(side * extent / extent.max()), 1).astype(int).tolist()
        self.size = (int(width), int(height))

    def input(self) -> Image.Image:
        """The image itself, in gray or RGB."""
        pixels = np.round(255 * displayable(self._image)).astype(np.uint8)
        # Nearest neighbor keeps magnified pixels sharp.
        smaller = self.size[0] < pixels.shape[1]
        method = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
        return Image.fromarray(pixels).resize(self.size, method)

    def classes(self, labels: Labels) -> Image.Image:
        """Class indices (H, W), -1 where ignored, as a transparent color layer."""
        labels = self._resized(labels)
        highest = max(int(labels.max()), 0)
        colours = [class_colour(label) for label in range(1, highest + 1)]
        areas = [labels == label for label in range(1, highest + 1)]
        return _layer([*areas, labels < 0], [*colours, IGNORED])

    def errors(self, truth: Labels, prediction: Labels) -> Image.Image:
        """Correct, added, missed and confused pixels of a prediction, as a transparent layer."""
        truth, prediction = self._resized(truth), self._resized(prediction)
        known = truth >= 0
        true, found, same = truth > 0, (prediction > 0) & known, truth == prediction
        return _layer(
            [true & same, found & ~true, true & ~found, true & found & ~same, ~known],
            [CORRECT, ADDED, MISSED, CONFUSED, IGNORED],
            fills=(FILL, 0.85, 0.85, 0.85, FILL),
        )

    def under(self, layer: Image.Image) -> Image.Image:
        """The image in RGB with one of the layers over it."""
        picture = self.input().convert("RGBA")
        picture.alpha_composite(layer.convert("RGBA"))
        return picture.convert("RGB")

    def _resized(self, labels: Labels) -> Labels:
        picture = Image.fromarray(labels.astype(np.int32)).resize(
            self.size, Image.Resampling.NEAREST
        )
        return np.asarray(picture, np.int64)


def overlay_path(run: Path, case: str, iteration: int) -> Path:
    """Path in a run folder of the picture of a case after an iteration."""
    return run / FOLDER / file_name(case) / f"{iteration:07d}.png"


def save_overlay(
    run: Path,
    case: str,
    iteration: int,
    image: npt.NDArray[np.float32],
    truth: Labels,
    prediction: Labels,
) -> None:
    """Draw correct and wrong pixels of a prediction over its image, into the run folder.

    image: (C, H, W); truth, prediction: (H, W) class indices, truth -1 where ignored.
    """
    canvas = Canvas(image)
    picture = canvas.under(canvas.errors(truth, prediction))
    write_png(overlay_path(run, case, iteration), picture)


def _layer(
    areas: Sequence[npt.NDArray[np.bool_]],
    colours: Sequence[str],
    fills: Sequence[float] | None = None,
) -> Image.Image:
    """Areas in their colors with darker edges, transparent elsewhere; palette mode for size."""
    shown = np.zeros(areas[0].shape, np.uint8)
    palette, opacity = [0, 0, 0], [0]
    for i, (area, colour) in enumerate(zip(areas, colours, strict=True)):
        shown[area] = 2 * i + 1
        shown[area & ~_inside(area)] = 2 * i + 2
        palette += 2 * [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        opacity += [round(255 * (FILL if fills is None else fills[i])), round(255 * EDGE)]
    picture = Image.fromarray(shown)
    picture.putpalette(palette)
    picture.info["transparency"] = bytes(opacity)
    return picture


def _inside(area: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels farther than an edge's width from other areas; the image border counts as inside."""
    inside = np.pad(area, EDGE_WIDTH, mode="edge")
    for axis in (0, 1):
        shifted = [np.roll(inside, s, axis) for s in range(-EDGE_WIDTH, EDGE_WIDTH + 1)]
        inside = np.logical_and.reduce(shifted)
    return inside[EDGE_WIDTH:-EDGE_WIDTH, EDGE_WIDTH:-EDGE_WIDTH]
