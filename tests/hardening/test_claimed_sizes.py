"""Small files that claim or expand to huge sizes: refused quickly, without allocating memory."""

from __future__ import annotations

import bz2
import gzip
import resource
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from image_files import dicom_slice
from pydicom.uid import DeflatedExplicitVRLittleEndian

from swin_umamba.data import read_raw
from swin_umamba.data.io import dicom_files, nifti, tiff
from swin_umamba.errors import UserError

SLICE = np.zeros((20, 24), np.uint16)


def nrrd(encoding: str, content: bytes = b"0 1 2") -> Callable[[Path], object]:
    head = f"type: double\ndimension: 3\nsizes: 1000 1000 1000\nencoding: {encoding}\n"
    return lambda path: path.write_bytes(f"NRRD0004\n{head}endian: little\n\n".encode() + content)


def mha(content: bytes = b"12345678", **changes: object) -> Callable[[Path], object]:
    fields = {"NDims": 2, "DimSize": "2 2", "ElementType": "MET_UCHAR", **changes}
    head = "".join(f"{name} = {value}\n" for name, value in fields.items())
    return lambda path: path.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + content)


def dicom(**tags: object) -> Callable[[Path], object]:
    return lambda path: pydicom.dcmwrite(path, dicom_slice(SLICE, **tags))


ZIPPED = mha(zlib.compress(b"abcd"), CompressedData=True, CompressedDataSize=10**11)
CLAIMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.nrrd": (nrrd("text"), "1999999999 bytes"),
    "ascii.nrrd": (nrrd("ascii"), "1999999999 bytes"),
    "hex.nrrd": (nrrd("hex"), "8000000000 bytes"),
    "bzip2.nrrd": (nrrd("bzip2", bz2.compress(b"0" * 100)), "the encoding 'bzip2'"),
    "odd.nrrd": (nrrd("zrl"), "the encoding 'zrl'"),
    "text.mha": (mha(DimSize="40000 20000", BinaryData=False), "1599999999 bytes"),
    "zipped.mha": (ZIPPED, "end early"),
    "axes.mha": (mha(NDims=10**6), "NDims 1000000 but 2 sizes"),
    "type.mha": (mha(ElementType="MET_\u00e9[31m"), "the ElementType"),
    "escape.mha": (mha(Comment="\x1b[31m"), "control characters"),
    "frames.dcm": (dicom(NumberOfFrames=99_999_999), "pixels, the limit is"),
    "few.dcm": (dicom(NumberOfFrames=-5), "-5 frames"),
    "rows.dcm": (dicom(Rows=65535, Columns=65535), "pixels, the limit is"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_header_claims_is_not_believed(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = CLAIMS[name]
    make(tmp_path / name)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=message) as error:
        read_raw(tmp_path / name)
    assert name in str(error.value)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert capfd.readouterr().err == ""


def test_dicom_that_is_deflated_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcm"
    data = dicom_slice(SLICE)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.add_new(0x00090010, "LO", "x")
    data.add_new(0x00091001, "OB", bytes(5_000_000))
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    assert path.stat().st_size < 10_000
    assert read_raw(path).pixels.shape == (1, 1, 20, 24)
    monkeypatch.setattr(dicom_files, "_INFLATED", 4_000_000)
    with pytest.raises(UserError, match=r"a\.dcm is too large: more than 4000000 bytes once it"):
        read_raw(path)


def test_zipped_nifti_with_more_than_its_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii.gz"
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    path.write_bytes(gzip.compress(image.to_bytes() + bytes(3_000_000)))
    assert read_raw(path).pixels.shape == (1, 4, 4, 4)
    monkeypatch.setattr(nifti, "_BLOCKS_AFTER", 2)
    with pytest.raises(UserError, match=r"a\.nii\.gz holds far more than the pixels"):
        read_raw(path)


def test_tiffs_of_very_many_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(6):
            file.write(SLICE, contiguous=False, photometric="minisblack", metadata=None)
    assert read_raw(path).pixels.shape == (1, 6, 20, 24)
    monkeypatch.setattr(tiff, "MAX_PAGES", 5)
    with pytest.raises(UserError, match=r"a\.tif has 6 pages, expected at most 5"):
        read_raw(path)
