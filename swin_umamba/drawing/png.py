"""The only place that writes PNG files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from swin_umamba.common.files import write_bytes


def png(image: Image.Image, *, small: bool = True) -> bytes:
    """Encode an image. small: whether to spend more time for a smaller file."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=small)
    return file.getvalue()


def write_png(path: Path, image: Image.Image, *, small: bool = True) -> None:
    """Write an image atomically. Raises UserError if that fails."""
    write_bytes(path, png(image, small=small))
