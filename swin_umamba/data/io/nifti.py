"""NIfTI, through nibabel."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import replacing
from swin_umamba.data.io.limits import (
    DEFLATE_RATIO,
    VOLUME_PIXELS,
    check_spacing,
    damage_named,
    require_bytes,
    require_pixels,
)
from swin_umamba.data.io.pixels import (
    RAS_TO_LPS,
    FilePixels,
    Grid,
    NiftiGeometry,
    Reading,
    vector,
)
from swin_umamba.errors import UserError

SPACING_ROUNDED = 0.01  # relative, for header rounding
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20  # bytes
_BLOCKS_AFTER = 64  # bytes that may follow the pixels
_MAX_LENGTH = np.iinfo(np.int16).max  # of an axis in NIfTI-1
_NAMED, _SECOND = 4, 540  # the header length field, and its value for NIfTI-2


def read(path: Path, reading: Reading) -> FilePixels:
    """A volume as (1, Z, H, W), the reverse of the file's order, not reoriented."""
    import nibabel

    errors = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
    )
    with damage_named(path, *errors), _opened(path) as file:
        make = nibabel.Nifti2Image if _is_second(file.read(_NAMED)) else nibabel.Nifti1Image
        file.seek(0)
        with _silent():
            image: Any = make.from_stream(file)
        _require_whole(image, path, reading.max_pixels)
        affine = np.array(image.affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise UserError(f"{path} has an affine with NaN or infinite values: correct its header")
        if abs(np.linalg.det(affine[:3, :3])) < np.finfo(np.float64).tiny:
            raise UserError(f"{path} has a singular affine: correct its header")
        values = np.asanyarray(image.dataobj)
        # nibabel stops before the checksum at the end of a gzip file.
        for _ in range(_BLOCKS_AFTER):
            if not file.read(_BLOCK):
                break
        else:
            raise UserError(f"{path} holds far more than the pixels that its header claims")
    shape = values.shape
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise UserError(
            f"{path} has shape {shape}, expected a volume (x, y, z); give channels or time points"
            " as separate files (_0000, _0001, ...)"
        )
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    zooms += [1.0] * (3 - len(zooms))
    _require_same_spacing(zooms, affine, values.shape, path)
    spacing = check_spacing((zooms[2], zooms[1], zooms[0]), path)
    geometry = NiftiGeometry(image.header.copy(), affine, shape)
    origin, direction = geometry.position or (None, None)
    return FilePixels(values.transpose(2, 1, 0)[None], spacing, geometry, origin, direction)


def write(path: Path, stack: npt.NDArray[Any], like: Grid) -> None:
    """Write labels (Z, H, W) with the header, affine and shape of a NIfTI image.

    For images of other formats, with their position in the world.
    """
    import nibabel

    values = stack.transpose(2, 1, 0)
    if isinstance(like.geometry, NiftiGeometry):
        header, affine = like.geometry.header.copy(), like.geometry.affine
        values = values.reshape(like.geometry.shape)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    else:
        header, affine = None, affine_of(like)
    # 4-byte labels, needed for instances, are unusual but within the standard.
    second = isinstance(header, nibabel.Nifti2Header) or max(values.shape) > _MAX_LENGTH
    make: Any = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    image = make(values, affine, header, dtype=values.dtype)
    if header is None:
        image.header.set_xyzt_units("mm")
    with replacing(path) as partial:
        nibabel.save(image, partial)


def affine_of(like: Grid) -> npt.NDArray[np.float64]:
    """The affine (x, y, z to RAS) of a grid; from its spacing alone if it has no position."""
    affine = np.diag([*like.spacing[::-1], 1.0])
    if like.origin is not None and like.direction is not None:
        columns = np.array(like.direction[::-1]).T * np.array(like.spacing[::-1])
        affine[:3, :3] = RAS_TO_LPS @ columns
        affine[:3, 3] = vector(RAS_TO_LPS @ np.array(like.origin))
    return affine


def _require_same_spacing(
    zooms: Sequence[float], affine: npt.NDArray[np.float64], shape: Sequence[int], path: Path
) -> None:
    """Raise UserError, naming the file, if its pixdim and affine state different spacings.

    Viewers and tools use one or the other. A single slice has no slice distance.
    """
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, here, there, n in zip("xyz", zooms, steps, shape, strict=True):
        if n > 1 and abs(here - there) > SPACING_ROUNDED * max(here, there):
            raise UserError(
                f"{path} has two spacings along {axis}: {here:g} in its pixdim but {there:g} in its"
                " affine (sform or qform): correct the wrong one, e.g. with nibabel's"
                " img.header.set_zooms, or img.set_sform"
            )


def _require_whole(image: Any, path: Path, max_pixels: int | None) -> None:
    """Raise UserError for more pixels than allowed, or than the file can contain."""
    shape = image.shape
    if any(length < 1 for length in shape):
        raise UserError(f"{path} has shape {shape}, expected a volume (x, y, z)")
    pixels = math.prod(shape)
    require_pixels(path, pixels, VOLUME_PIXELS, max_pixels)
    zipped = _is_zipped(path)
    offset = 0 if zipped else int(image.dataobj.offset)
    claimed = pixels * image.get_data_dtype().itemsize
    require_bytes(path, claimed, DEFLATE_RATIO if zipped else 1, offset)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file's content, decompressed if needed, for any case of its ending."""
    with gzip.open(path) if _is_zipped(path) else path.open("rb") as file:
        yield file


def _is_second(start: bytes) -> bool:
    """Whether a header is NIfTI-2, from its length in either byte order."""
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    return start in [_SECOND.to_bytes(_NAMED, order) for order in orders]


def _is_zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


@contextmanager
def _silent() -> Iterator[None]:
    """Silence nibabel's logging of errors that it then raises."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
