"""Pictures of effective receptive fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from swin_umamba.drawing.fields import save_fields


def test_long_names_stay_above_their_own_panels(tmp_path: Path) -> None:
    field = np.ones((16, 16))
    names = ("PolypGen-swin_umamba+vmamba_tiny+pretrained-0", "a" * 30 + "/" + "b" * 30, "c" * 90)
    save_fields(tmp_path / "fields.png", dict.fromkeys(names, field))
    with Image.open(tmp_path / "fields.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    width = pixels.shape[1] // len(names)
    for border in (width, 2 * width):
        assert (pixels[:, border - 2 : border + 3] > 250).all()
    assert (pixels[0] > 250).all()  # nor are they cut off at the top
