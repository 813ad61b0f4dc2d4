"""MetaImage and NRRD: pixels, position, and untrustworthy headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from data_helpers import noise
from image_files import write_itk

from swin_umamba.data import mask_ending, read_labels, read_raw, write_labels
from swin_umamba.data.io.formats import files_of
from swin_umamba.errors import UserError

VOLUME = noise((4, 20, 24), 0)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
PLACE = {"spacing": (3.0, 0.5, 0.6), "origin": (-7.0, 11.0, 3.0), "direction": OBLIQUE}
ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32, np.float64])
def test_volumes_are_read_as_written(
    tmp_path: Path, ending: str, dtype: type, compress: bool
) -> None:
    path = tmp_path / f"x{ending}"
    write_itk(path, VOLUME.astype(dtype), compress, **PLACE)
    raw = read_raw(path)
    assert raw.pixels.dtype == dtype
    np.testing.assert_array_equal(raw.pixels[0], VOLUME)
    assert raw.spacing == PLACE["spacing"]
    assert raw.origin == PLACE["origin"]
    columns = np.reshape(OBLIQUE, (3, 3)).T
    np.testing.assert_allclose(raw.direction, columns[::-1], atol=1e-9)  # type: ignore[arg-type]
    assert len(files_of(path)) == (2 if ending in (".mhd", ".nhdr") else 1)
    assert all(part.is_file() for part in files_of(path))


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_pictures_and_channels(tmp_path: Path, ending: str) -> None:
    write_itk(tmp_path / f"flat{ending}", VOLUME[0], spacing=(0.5, 0.6))
    raw = read_raw(tmp_path / f"flat{ending}")
    np.testing.assert_array_equal(raw.pixels, VOLUME[:1, None][:, :, :20])
    assert raw.spacing == (1.0, 0.5, 0.6)
    image = SimpleITK.GetImageFromArray(np.moveaxis(VOLUME[:3], 0, -1)[None], isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / f"rgb{ending}"))
    np.testing.assert_array_equal(read_raw(tmp_path / f"rgb{ending}").pixels[:, 0], VOLUME[:3])
    with pytest.raises(UserError, match=rf"rgb{ending} has 3 channels"):
        read_labels(tmp_path / f"rgb{ending}")


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz", ".NRRD"])
@pytest.mark.parametrize("flat", [False, True])
def test_labels_are_written_where_the_image_lies(tmp_path: Path, ending: str, flat: bool) -> None:
    source = tmp_path / "x.mha"
    write_itk(source, VOLUME[0] if flat else VOLUME, **({} if flat else PLACE))
    raw = read_raw(source)
    labels = np.random.default_rng(0).integers(0, 300, raw.pixels.shape[1:])
    write_labels(tmp_path / f"out{ending}", labels, raw)
    again = read_labels(tmp_path / f"out{ending}", raw)
    np.testing.assert_array_equal(again.labels, labels)
    if ending != ".nii.gz":
        assert again.geometry == raw.geometry
    itk = SimpleITK.ReadImage(str(tmp_path / f"out{ending}"), SimpleITK.sitkUInt16)
    original = SimpleITK.ReadImage(str(source))
    if itk.GetDimension() == original.GetDimension():
        np.testing.assert_allclose(itk.GetOrigin(), original.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(itk.GetDirection(), original.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(itk.GetSpacing(), original.GetSpacing(), rtol=1e-6)


def test_endings_of_masks() -> None:
    for name, ending in (
        ("x.mha", ".mha"),
        ("x.NRRD", ".NRRD"),
        ("x.mhd", ".mha"),
        ("x.nhdr", ".mha"),
        ("x.dcm", ".nii.gz"),
        ("x.jpeg", ".png"),
        ("x.NII.GZ", ".NII.GZ"),
    ):
        assert mask_ending(Path(name)) == ending


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_headers_that_claim_more_than_the_file_holds(
    tmp_path: Path, ending: str, compress: bool
) -> None:
    path = tmp_path / f"x{ending}"
    write_itk(path, VOLUME, compress)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"24 20 4", b"24 20 40000"))
    with pytest.raises(UserError, match=rf"x{ending} .*claims 19200000 bytes"):
        read_raw(path)
    path.write_bytes(content.replace(b"24 20 4", b"24000 20000 40000"))
    with pytest.raises(UserError, match=rf"x{ending} is too large"):
        read_raw(path)


@pytest.mark.parametrize(
    "name", ["../secret.raw", "/etc/passwd", "a/../../x.raw", "LIST", "%03d.raw"]
)
@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_headers_name_no_files_elsewhere(tmp_path: Path, ending: str, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(VOLUME.tobytes())
    path = tmp_path / "inner" / f"x{ending}"
    write_itk(path, VOLUME)
    (data,) = (part for part in files_of(path) if part != path)
    path.write_text(path.read_text().replace(data.name, name))
    with pytest.raises(UserError, match=rf"x{ending} names its pixels .* in the folder"):
        read_raw(path)
    path.write_text(path.read_text().replace(name, "gone.raw"))
    with pytest.raises(UserError, match=rf"no file at .*gone\.raw, which .*x{ending} names"):
        read_raw(path)


def test_four_axes_are_refused(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(noise((2, 3, 4, 5), 0), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / "x.mha"))
    with pytest.raises(UserError, match=r"x\.mha has 4 axes"):
        read_raw(tmp_path / "x.mha")
