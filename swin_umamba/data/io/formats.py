"""All readable and writable formats in one table, by file name ending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swin_umamba.data.io import dicom, dicom_files, itk, nifti, pictures, tiff
from swin_umamba.data.io.limits import damage_named
from swin_umamba.data.io.pixels import (
    FilePixels,
    Geometry,
    Grid,
    ItkGeometry,
    NiftiGeometry,
    Reading,
    TiffGeometry,
)
from swin_umamba.errors import UserError

__all__ = [
    "ENDINGS",
    "FORMATS",
    "NIFTI_ENDINGS",
    "PICTURE_ENDINGS",
    "TIFF_ENDINGS",
    "FilePixels",
    "Format",
    "Geometry",
    "ItkGeometry",
    "NiftiGeometry",
    "TiffGeometry",
    "ending_of",
    "files_of",
    "format_of",
    "read_file",
]

Write = Callable[[Path, npt.NDArray[Any], Grid], None]


@dataclass(frozen=True)
class Format:
    """How files with certain endings are read and written.

    mask_ending: of label files for such images; None for the image's own. write: writes labels (Z,
    H, W) with values up to the maximum of the dtype `most` on an image's grid; None for read-only
    formats.
    """

    name: str
    endings: tuple[str, ...]
    read: Callable[[Path, Reading], FilePixels]
    mask_ending: str | None = None
    write: Write | None = None
    most: int = np.iinfo(np.uint32).max


NIFTI = Format("NIfTI", (".nii.gz", ".nii"), nifti.read, write=nifti.write)
TIFF = Format("TIFF", (".tif", ".tiff"), tiff.read, write=tiff.write)
PNG = Format("PNG", (".png",), pictures.read, write=pictures.write, most=np.iinfo(np.uint16).max)
LOSSY = Format("JPEG, BMP", (".jpg", ".jpeg", ".bmp"), pictures.read, ".png")
ITK = Format("MetaImage, NRRD", (".mha", ".nrrd"), itk.read, write=itk.write)
ITK_HEADER = Format("MetaImage, NRRD in two files", (".mhd", ".nhdr"), itk.read, ".mha")
DICOM = Format("DICOM", (".dcm",), dicom.read, ".nii.gz")
FORMATS = (NIFTI, TIFF, PNG, LOSSY, ITK, ITK_HEADER, DICOM)

NIFTI_ENDINGS = NIFTI.endings
TIFF_ENDINGS = TIFF.endings
PICTURE_ENDINGS = (*PNG.endings, *LOSSY.endings)
ENDINGS = tuple(ending for form in FORMATS for ending in form.endings)


def ending_of(path: Path) -> str | None:
    """The entry of ENDINGS that the file name ends with, as spelled in the name."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[-len(ending) :]
    return None


def format_of(path: Path) -> Format | None:
    """The format of a file name's ending, in any case of letters; DICOM for folders."""
    if path.is_dir():
        return DICOM
    ending = (ending_of(path) or "").lower()
    return next((form for form in FORMATS if ending in form.endings), None)


def read_file(path: Path, *, palette: bool, max_pixels: int | None = None) -> FilePixels:
    """The pixels of a file, as image viewers show them.

    Pictures and 2-D TIFFs have Z = 1; a TIFF with several pages is a volume. NIfTI, MetaImage, NRRD
    and DICOM are read in the order (Z, Y, X), the reverse of the file's, without reorientation. A
    folder with one DICOM series is a volume whose slices are sorted by position.

    EXIF orientation is applied, also to masks. All bits are kept; 1-bit images have values 0 and 1.
    CMYK and YCbCr become RGB; TIFFs whose lowest value is white are inverted. An alpha channel that
    is opaque everywhere is dropped; any other becomes the last channel. palette: for masks: read
    palette indices, and 1-, 2- and 4-bit values as stored.

    Spacing is 1 if the format has none; for TIFF volumes it is read from `{"spacing": [z, y, x]}`
    in a JSON file of the same name, as in nnU-Net. max_pixels: limit; by default
    $SWIN_UMAMBA_MAX_PIXELS, else Pillow's limit for pictures and 2^30 for all others.

    Raises UserError, naming the file, if it is missing, damaged, too large, or not an image.
    """
    # Not devices or pipes, which may never end.
    if not path.is_file() and not path.is_dir():
        raise UserError(f"no file at {path}")
    form = format_of(path) or LOSSY
    with damage_named(path):
        read = form.read(path, Reading(palette, max_pixels))
    pixels = read.pixels
    if pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise UserError(f"{path} holds {pixels.dtype} {pixels.shape}, expected an image")
    if pixels.dtype.kind == "f" and pixels.dtype.itemsize > 8:
        pixels = pixels.astype(np.float64)
    return replace(read, pixels=pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that make up an image: itself, and a TIFF's spacing file, a header's pixel file, or
    the DICOM series of a folder."""
    form = format_of(path)
    if path.is_dir():
        return dicom_files.files_in(path)
    if form is TIFF:
        note = tiff.note_of(path)
        return (path, note) if note.is_file() else (path,)
    return (path, itk.data_file(path)) if form is ITK_HEADER else (path,)
