"""A picture of some cases as the network sees them, with their labels on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from swin_umamba.common.files import write_bytes
from swin_umamba.data.prepare.cache import VolumeOnDisk
from swin_umamba.drawing.overlays import Canvas, png

CASES = 6
SIDE = 256  # pixels of each picture
COLUMNS = 2  # cases side by side
CAPTION, GAP = 16, 8  # pixels
GROUND, INK = "#ffffff", "#202020"


def save_preview(
    path: Path,
    volumes: Sequence[VolumeOnDisk],
    spacing: tuple[float, float] = (1.0, 1.0),
    cases: int = CASES,
) -> None:
    """Draw some cases, evenly spaced over all, after normalization, cropping and resampling.

    Each is shown alone and with its labels; for volumes, the slice with the most labels. Ignored
    pixels are gray. spacing: of the plan. Raises UserError if the file cannot be written.
    """
    places = np.unique(np.linspace(0, len(volumes) - 1, min(cases, len(volumes))).astype(int))
    tiles = [_tile(volumes[place], spacing) for place in places]
    rows = [tiles[at : at + COLUMNS] for at in range(0, len(tiles), COLUMNS)]
    width = max(sum(tile.width + GAP for tile in row) for row in rows) + GAP
    height = sum(max(tile.height for tile in row) + GAP for row in rows) + GAP
    sheet = Image.new("RGB", (width, height), GROUND)
    top = GAP
    for row in rows:
        left = GAP
        for tile in row:
            sheet.paste(tile, (left, top))
            left += tile.width + GAP
        top += max(tile.height for tile in row) + GAP
    write_bytes(path, png(sheet))


def _tile(volume: VolumeOnDisk, spacing: tuple[float, float]) -> Image.Image:
    """The image, and next to it the image with its labels, under the case name."""
    found = [int((volume.mask(i) > 0).sum()) for i in range(volume.slices)]
    at = int(np.argmax(found))
    canvas = Canvas(volume.image(at), spacing, SIDE)
    layer = canvas.classes(np.asarray(volume.mask(at), np.int64))
    width, height = canvas.size
    tile = Image.new("RGB", (2 * width, CAPTION + height), GROUND)
    tile.paste(canvas.input().convert("RGB"), (0, CAPTION))
    tile.paste(canvas.under(layer), (width, CAPTION))
    name = volume.name if volume.slices == 1 else f"{volume.name}, slice {at}"
    # The built-in font has no other characters.
    text = name.encode("ascii", "replace").decode()
    ImageDraw.Draw(tile).text((0, 2), text, fill=INK)
    return tile
