"""Every format that is read or written: one table, by the endings of files' names."""

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
    """How files of some endings are read and written.

    mask_ending: of label files for such images, None for the image's own. write: numbers
    (Z, H, W) of dtypes up to `most` with the grid of an image; None for formats that are only read.
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
    """The part of ENDINGS that the file's name ends with, as it is written there."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[-len(ending) :]
    return None


def format_of(path: Path) -> Format | None:
    """The format of a name's ending, whatever its case; DICOM for folders."""
    if path.is_dir():
        return DICOM
    ending = (ending_of(path) or "").lower()
    return next((form for form in FORMATS if ending in form.endings), None)


def read_file(path: Path, *, palette: bool, max_pixels: int | None = None) -> FilePixels:
    """The pixels of a file, as every viewer shows them.

    Pictures and 2-D TIFFs have Z = 1; a TIFF of several pages is a volume; NIfTI is taken in the
    order (Z, Y, X), the reverse of the file's, without reorientation, as are MetaImage, NRRD and
    DICOM, of which a folder of one series is a volume, its slices sorted by their place.

    Pixels are turned as EXIF says, masks likewise. All bits are kept; 1 bit is 0 and 1.
    CMYK and YCbCr become RGB, a TIFF whose white is lowest is inverted. An alpha channel that is
    opaque everywhere is dropped, another is the last channel. palette: whether the numbers of a
    mask are wanted: of palettes the indices, of 1, 2 and 4 bits what is stored.

    Spacing is 1 where the format has none; a TIFF volume's is read from `{"spacing": [z, y, x]}`
    in a JSON file of its name, as in nnU-Net. max_pixels: the most that are read, else
    $SWIN_UMAMBA_MAX_PIXELS, else Pillow's limit for pictures and 2^30 for all else.

    Raises UserError, naming the file, if it is missing, damaged, too large, or of no image.
    """
    # Neither devices nor pipes, which may have no end.
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
    """All files that make an image: itself and the one of a TIFF's spacing or of a header's pixels;
    those of a folder's DICOM series."""
    form = format_of(path)
    if path.is_dir():
        return dicom_files.files_in(path)
    if form is TIFF:
        note = tiff.note_of(path)
        return (path, note) if note.is_file() else (path,)
    return (path, itk.data_file(path)) if form is ITK_HEADER else (path,)
