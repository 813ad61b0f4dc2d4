"""Write predictions in the form of the images they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from swin_umamba.common.files import replacing
from swin_umamba.data.io.formats import (
    NIFTI_ENDINGS,
    PICTURE_ENDINGS,
    TIFF_ENDINGS,
    NiftiGeometry,
    TiffGeometry,
    ending_of,
)
from swin_umamba.data.io.raw import RawImage


def mask_ending(image: Path) -> str:
    """The ending of label files for an image by its first file: its own, ".png" if lossy."""
    ending = ending_of(image) or ".png"
    return ending if ending.lower() in (*NIFTI_ENDINGS, *TIFF_ENDINGS) else ".png"


def write_labels(
    path: str | Path,
    labels: npt.NDArray[Any],
    like: RawImage,
    values: Sequence[int] | None = None,
) -> None:
    """Write whole numbers >= 0, whole or not at all, with the geometry of an image.

    labels: (Z, H, W) or (H, W), on the grid of `like.pixels`. values: the number to write for each
    class (Plan.values), so that predictions compare with the user's masks; None writes the labels
    as they are, instance numbers too. The format goes by the path's ending, see `mask_ending`:
    NIfTI keeps header, affine and shape, TIFF resolution, PNG is grey. The dtype is the first of
    uint8, uint16 and, but for PNG, uint32 that holds the numbers.

    Raises ValueError for labels that fit neither `like` nor the format, UserError if the file
    cannot be written.
    """
    path = Path(path)
    ending = (ending_of(path) or "").lower()
    if ending not in (*NIFTI_ENDINGS, *TIFF_ENDINGS, ".png"):
        raise ValueError(f"path: got {path}, expected an ending of NIfTI, TIFF or PNG")
    stack = labels[None] if labels.ndim == 2 else labels
    if stack.shape != like.pixels.shape[1:]:
        raise ValueError(f"labels: got {labels.shape}, expected {like.pixels.shape[1:]} (Z, H, W)")
    if stack.dtype.kind not in "biu" or stack.min() < 0:
        raise ValueError(f"labels: got {stack.dtype}, expected whole numbers >= 0")
    if values is not None:
        stack = np.asarray(values, np.int64)[stack]
    stack = stack.astype(_dtype(int(stack.max()), ending))
    if ending in PICTURE_ENDINGS:
        if stack.shape[0] != 1:
            raise ValueError(f"labels: got {stack.shape[0]} slices, expected one for {path.name}")
        with replacing(path) as partial:
            Image.fromarray(stack[0]).save(partial, format="PNG")
    elif ending in TIFF_ENDINGS:
        _write_tiff(path, stack, like)
    else:
        _write_nifti(path, stack, like)


def write_probabilities(path: str | Path, probabilities: npt.NDArray[Any], like: RawImage) -> None:
    """Write floats (K, Z, H, W) or (K, H, W) as nnU-Net does: `probabilities` in a .npz file.

    Whole or not at all, in their dtype, on the grid of `like.pixels`. Raises ValueError for others,
    UserError if the file cannot be written.
    """
    path = Path(path)
    stack = probabilities[:, None] if probabilities.ndim == 3 else probabilities
    if stack.ndim != 4 or stack.shape[1:] != like.pixels.shape[1:] or stack.dtype.kind != "f":
        raise ValueError(
            f"probabilities: got {probabilities.dtype} {probabilities.shape}, expected floats"
            f" (K, *{like.pixels.shape[1:]})"
        )
    if path.suffix != ".npz":
        raise ValueError(f"path: got {path}, expected an ending .npz")
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, probabilities=stack)


def _dtype(highest: int, ending: str) -> type[np.unsignedinteger[Any]]:
    dtypes = (
        (np.uint8, np.uint16) if ending in PICTURE_ENDINGS else (np.uint8, np.uint16, np.uint32)
    )
    for dtype in dtypes:
        if highest <= np.iinfo(dtype).max:
            return dtype
    raise ValueError(f"labels: got {highest}, more than a {ending} file holds")


def _write_tiff(path: Path, stack: npt.NDArray[Any], like: RawImage) -> None:
    geometry = like.geometry if isinstance(like.geometry, TiffGeometry) else TiffGeometry(None, 1)
    pixels = stack[0] if stack.shape[0] == 1 else stack
    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            pixels,
            compression="zlib",
            photometric="minisblack",
            resolution=geometry.resolution,
            resolutionunit=geometry.unit,
            metadata={"axes": "YX" if pixels.ndim == 2 else "ZYX"},
        )


def _write_nifti(path: Path, stack: npt.NDArray[Any], like: RawImage) -> None:
    import nibabel

    values = stack.transpose(2, 1, 0)
    if isinstance(like.geometry, NiftiGeometry):
        header, affine = like.geometry.header.copy(), like.geometry.affine
        values = values.reshape(like.geometry.shape)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    else:
        header, affine = None, np.diag([*like.spacing[::-1], 1.0])
    # One that holds 4-byte numbers for instances is unusual but within the standard.
    make: Any = nibabel.Nifti1Image
    image = make(values, affine, header, dtype=values.dtype)
    with replacing(path) as partial:
        nibabel.save(image, partial)
