"""Headers that claim more than the file contains, and packages that are not installed."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from data_helpers import noise, write_pixels
from image_files import FILES

from swin_umamba.data import read_labels, read_raw, write_labels
from swin_umamba.errors import UserError


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("make", [nibabel.Nifti1Header, nibabel.Nifti2Header])
def test_a_header_alone_asks_for_no_memory(tmp_path: Path, zipped: bool, make: type) -> None:
    """360 bytes that claim 8 GB: nothing is allocated."""
    header = make()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1000, 1000, 1000))
    header["magic"] = b"n+1" if make is nibabel.Nifti1Header else b"n+2"
    header["vox_offset"] = len(header.binaryblock) + 4
    content = header.binaryblock + bytes(12)
    path = tmp_path / ("x.nii.gz" if zipped else "x.nii")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(UserError, match=r"x\.nii.* header claims 8000000000 bytes of pixels"):
        read_raw(path)
    header.set_data_shape((2000, 1000, 1000))
    path.write_bytes(header.binaryblock + bytes(12))
    with pytest.raises(UserError, match=r"x\.nii.* is too large: 2000000000 pixels.*=2000000000"):
        read_raw(path)


def test_a_png_alone_asks_for_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_pixels(path, noise((8, 9), 0))
    content = bytearray(path.read_bytes())
    content[16:24] = (10_000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png is damaged"):
        read_raw(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("make", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_both_versions_of_nifti(tmp_path: Path, ending: str, make: type) -> None:
    volume = noise((4, 8, 9), 0)
    nibabel.save(make(volume.T, np.eye(4)), tmp_path / f"x{ending}")
    np.testing.assert_array_equal(read_raw(tmp_path / f"x{ending}").pixels[0], volume)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("volume.mha", "SimpleITK", "formats"),
        ("slice.dcm", "pydicom", "formats"),
        ("volume.nii.gz", "nibabel", "train"),
    ],
)
def test_packages_that_are_missing_are_named(
    tmp_path: Path, name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    FILES[name](path)
    raw = read_raw(path)
    for module in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    words = rf"{name} needs the package {package}: pip install 'swin-umamba\[{extra}\]'"
    for read in (read_raw, read_labels):
        with pytest.raises(UserError, match=words):
            read(path)
    if name.endswith(".mha"):
        with pytest.raises(UserError, match=words):
            write_labels(path, np.zeros(raw.pixels.shape[1:], np.int64), raw)
