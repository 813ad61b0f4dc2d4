"""DICOM files: recognize them, and read them within limits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_umamba.data.io.limits import damage_named, require_inflated
from swin_umamba.errors import UserError

ENDING = ".dcm"
_MAGIC, _PREAMBLE = b"DICM", 128
_GROUP = 12  # bytes of the first element, which contains the length of the meta information
_GROUP_LENGTH = 0x00000002  # its tag, as two little-endian 2-byte numbers
_INFLATED = 1 << 30  # bytes of a file that is deflated as a whole
_TRIED = 8  # files in a folder


def is_series(folder: Path) -> bool:
    """Whether a folder contains DICOM files, by an ending or the first bytes of some files."""
    if not folder.is_dir():
        return False
    files = _visible(folder)
    return any(p.suffix.lower() == ENDING for p in files) or any(map(_is_dicom, files[:_TRIED]))


def is_volume(folder: Path) -> bool:
    """Whether a folder's DICOM images are slices of one series, rather than separate images.

    Raises UserError for slices of several series, for images whose names do not end with ENDING,
    and, naming the file, if one cannot be read.
    """
    if not is_series(folder):
        return False
    with damage_named(folder):
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

    series: dict[str, Path] = {}
    files = []
    for path in files_in(folder):
        with damage_named(path, InvalidDicomError):
            tags = ["SeriesInstanceUID", "Rows"]
            header = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if "Rows" in header:  # not of reports, DICOMDIR and the like
            files.append(path)
            series.setdefault(str(header.get("SeriesInstanceUID", "")), path)
    if len(files) > 1 and len(series) == 1:
        return True
    if len(series) < len(files):
        raise UserError(mixed(folder, list(series.values())))
    for path in files:
        if path.suffix.lower() != ENDING:
            raise UserError(f"{path} is a DICOM image, but its name does not end with {ENDING}")
    return False


def files_in(folder: Path) -> tuple[Path, ...]:
    """The DICOM files of a folder, recognized by ending or first bytes, sorted."""
    return tuple(p for p in _visible(folder) if p.suffix.lower() == ENDING or _is_dicom(p))


def _visible(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and p.is_file()]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def mixed(folder: Path, series: Sequence[Path]) -> str:
    one, other, *_ = series
    return (
        f"{folder} holds {len(series)} DICOM series, as in {one.name} and {other.name}: give"
        " each its own folder"
    )


def dataset_of(path: Path, **options: Any) -> Any:
    """pydicom's dataset of a file whose size in memory has been checked."""
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        require_inflated(path, _INFLATED, -zlib.MAX_WBITS, _end_of_meta(path))
    return dcmread(path, **options)


def _end_of_meta(path: Path) -> int:
    """Where a file's meta information ends, from its first element, (0002,0000): four bytes."""
    with path.open("rb") as file:
        file.seek(_PREAMBLE + len(_MAGIC))
        tag, length = struct.unpack("<I4xI", file.read(_GROUP))
    if tag != _GROUP_LENGTH:
        raise ValueError("its meta information does not begin with its length")
    return _PREAMBLE + len(_MAGIC) + _GROUP + int(length)
