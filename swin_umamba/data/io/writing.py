"""Write predictions in the format of their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import replacing
from swin_umamba.data.io.formats import FORMATS, Format, ending_of, format_of
from swin_umamba.data.io.limits import missing_package
from swin_umamba.data.io.raw import RawImage


def mask_ending(image: Path) -> str:
    """The ending of label files for an image, from its first file.

    The image's own, except: ".png" for JPEG, BMP and unknown endings, ".mha" for headers with a
    separate pixel file, ".nii.gz" for DICOM.
    """
    form = format_of(image)
    if form is None:
        return ".png"
    return form.mask_ending or ending_of(image) or ".png"


def write_labels(
    path: str | Path,
    labels: npt.NDArray[Any],
    like: RawImage,
    values: Sequence[int] | None = None,
) -> None:
    """Write integers >= 0 atomically, with the geometry of an image.

    labels: (Z, H, W) or (H, W), on the grid of `like.pixels`. values: the value to write for each
    class (Plan.values), so that predictions compare with the user's masks; None writes the labels
    unchanged, as for instance numbers. The path's ending decides the format, see `mask_ending`:
    NIfTI, MetaImage and NRRD keep the position in the world, also for DICOM images, and NIfTI keeps
    the header and shape of a NIfTI image; TIFF keeps the resolution; PNG is gray. The dtype is the
    first of uint8, uint16 and, except for PNG, uint32 that can represent the values.

    Raises ValueError for labels that match neither `like` nor the format, UserError if the file
    cannot be written.
    """
    path = Path(path)
    form = next((f for f in FORMATS if (ending_of(path) or "").lower() in f.endings), None)
    if form is None or form.write is None:
        known = ", ".join(f.name for f in FORMATS if f.write is not None)
        raise ValueError(f"path: got {path}, expected an ending of {known}")
    stack = labels[None] if labels.ndim == 2 else labels
    if stack.shape != like.pixels.shape[1:]:
        raise ValueError(f"labels: got {labels.shape}, expected {like.pixels.shape[1:]} (Z, H, W)")
    if stack.dtype.kind not in "biu" or stack.min() < 0:
        raise ValueError(f"labels: got {stack.dtype}, expected whole numbers >= 0")
    if values is not None:
        stack = np.asarray(values, np.int64)[stack]
    stack = stack.astype(_dtype(int(stack.max()), form))
    try:
        form.write(path, stack, like)
    except ModuleNotFoundError as error:
        raise missing_package(path, error) from error


def write_probabilities(path: str | Path, probabilities: npt.NDArray[Any], like: RawImage) -> None:
    """Write floats (K, Z, H, W) or (K, H, W) as nnU-Net does: `probabilities` in a .npz file.

    Written atomically, in their dtype, on the grid of `like.pixels`. Raises ValueError for anything
    else, UserError if the file cannot be written.
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


def _dtype(highest: int, form: Format) -> type[np.unsignedinteger[Any]]:
    for dtype in (np.uint8, np.uint16, np.uint32):
        if highest <= min(np.iinfo(dtype).max, form.most):
            return dtype
    raise ValueError(f"labels: got {highest}, more than a {form.endings[0]} file can store")
