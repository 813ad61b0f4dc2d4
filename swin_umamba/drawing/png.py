"""The one way in which PNG files are made."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from swin_umamba.common.files import write_bytes


def png(image: Image.Image, *, small: bool = True) -> bytes:
    """The file of a picture. small: whether to take more time for fewer bytes."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=small)
    return file.getvalue()


def write_png(path: Path, image: Image.Image, *, small: bool = True) -> None:
    """Write a picture whole or not at all. Raises UserError if that fails."""
    write_bytes(path, png(image, small=small))
