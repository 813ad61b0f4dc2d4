"""Small datasets on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from PIL import Image


def write_pixels(path: Path, pixels: np.ndarray, zooms: tuple[float, ...] = (1, 1, 1)) -> None:
    """(H, W) or (H, W, channels); for TIFF also (Z, H, W); for NIfTI (Z, H, W), zooms in (x, y, z).

    The ending decides the format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(pixels.transpose(), np.diag([*zooms, 1])), path)
    elif path.suffix in (".tif", ".tiff"):
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        tifffile.imwrite(path, pixels, photometric="rgb" if colour else "minisblack")
    else:
        Image.fromarray(pixels).save(path)


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def blob(shape: tuple[int, ...], value: int = 1) -> np.ndarray:
    """A box of `value` in the middle, 0 around it."""
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(n // 4, max(3 * n // 4, 1)) for n in shape)] = value
    return mask


def write_nnunet(
    folder: Path,
    *,
    cases: int = 3,
    shape: tuple[int, ...] = (20, 24),
    ending: str = ".png",
    channels: tuple[str, ...] = ("grey",),
    files: int | None = None,
    **facts: Any,
) -> Path:
    """case_0, case_1, ... of noise with a box as class 1. files: of an image; else one a channel.

    `facts` go into dataset.json; None leaves one out.
    """
    colour = files == 1 and len(channels) > 1
    for i in range(cases):
        for c in range(1 if files == 1 else len(channels)):
            pixels = noise((*shape, len(channels)) if colour else shape, seed=10 * i + c)
            write_pixels(folder / "imagesTr" / f"case_{i}_{c:04d}{ending}", pixels)
        write_pixels(folder / "labelsTr" / f"case_{i}{ending}", blob(shape))
    content = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, "blob": 1},
        "numTraining": cases,
        "file_ending": ending,
        **facts,
    }
    written = {key: value for key, value in content.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(written))
    return folder


def write_bare(
    folder: Path, *, cases: int = 3, value: int = 255, ending: str = ".png", mask: str = ".png"
) -> Path:
    """scan_a, scan_b, ... as RGB of 20x24 with a box of `value`."""
    for i in range(cases):
        name = f"scan_{chr(ord('a') + i)}"
        write_pixels(folder / "images" / f"{name}{ending}", noise((20, 24, 3), seed=i))
        write_pixels(folder / "masks" / f"{name}{mask}", blob((20, 24), value))
    return folder
