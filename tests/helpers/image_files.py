"""One small file of every readable format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
import tifffile
from data_helpers import noise, write_pixels
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SHAPE = (4, 20, 24)
VOLUME = noise(SHAPE, 0)
WORLD = {"spacing": (3.0, 0.5, 0.6), "origin": (-7.0, 11.0, 3.0)}


def itk_image(pixels: np.ndarray, **place: tuple[float, ...]) -> SimpleITK.Image:
    """(Z, H, W) with spacing (z, y, x), origin (x, y, z), direction as ITK has it."""
    image = SimpleITK.GetImageFromArray(pixels)
    image.SetSpacing(place.get("spacing", (1.0, 1.0, 1.0))[::-1][-pixels.ndim :])
    image.SetOrigin(place.get("origin", (0.0, 0.0, 0.0)))
    if "direction" in place:
        image.SetDirection(place["direction"])
    return image


def write_itk(path: Path, pixels: np.ndarray, compress: bool = False, **place: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(itk_image(pixels, **place), str(path), compress)


def dicom_slice(
    pixels: np.ndarray, *, at: float = 0.0, series: str = "1.2.3", **tags: object
) -> FileDataset:
    """(H, W) of 8 or 16 bits, `at` mm up; rows 0.5 and columns 0.6 mm apart. tags: further ones."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(at)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality = series, "CT"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelSpacing, data.SliceThickness = [0.5, 0.6], 3.0
    data.ImagePositionPatient = [-7.0, 11.0, 3.0 + at]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    return data


def write_dicom(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dicom_slice(pixels, **options))  # type: ignore[arg-type]


def write_series(folder: Path, volume: np.ndarray, **options: object) -> None:
    """Slices 3 mm apart, in an order of names that is not theirs."""
    for i, pixels in enumerate(volume):
        write_dicom(folder / f"{(7 * i) % 11:02d}.dcm", pixels, at=3.0 * i, **options)


def _stack(**options: object) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(
        path, VOLUME, photometric="minisblack", metadata={"axes": "ZYX"}, **options
    )


def _picture(mode: str, **options: object) -> Callable[[Path], None]:
    pixels = noise((20, 24, 3), 1)
    return lambda path: Image.fromarray(pixels).convert(mode).save(path, **options)


FILES: dict[str, Callable[[Path], None]] = {
    "grey.png": _picture("L"),
    "colour.png": _picture("RGB"),
    "palette.png": _picture("P"),
    "deep.png": lambda path: Image.fromarray(noise((20, 24), 1).astype(np.uint16) * 9).save(path),
    "colour.jpg": _picture("RGB"),
    "inks.jpg": _picture("CMYK"),
    "colour.bmp": _picture("RGB"),
    "bits.bmp": _picture("1"),
    "stack.tif": _stack(),
    "deflated.tif": _stack(compression="zlib"),
    "lzw.tif": _picture("RGB", compression="tiff_lzw"),
    "jpeg.tif": _picture("RGB", compression="jpeg"),
    "fax.tif": _picture("1", compression="group4"),
    "ome.tif": _stack(ome=True),
    "imagej.tif": _stack(imagej=True),
    "volume.nii": lambda path: write_pixels(path, VOLUME, (0.6, 0.5, 3)),
    "volume.nii.gz": lambda path: write_pixels(path, VOLUME, (0.6, 0.5, 3)),
    "volume.mha": lambda path: write_itk(path, VOLUME, **WORLD),
    "deflated.mha": lambda path: write_itk(path, VOLUME, compress=True, **WORLD),
    "volume.nrrd": lambda path: write_itk(path, VOLUME, **WORLD),
    "deflated.nrrd": lambda path: write_itk(path, VOLUME, compress=True, **WORLD),
    "header.nhdr": lambda path: write_itk(path, VOLUME, **WORLD),
    "header.mhd": lambda path: write_itk(path, VOLUME, **WORLD),
    "planar.tif": lambda path: tifffile.imwrite(
        path, noise((3, 20, 24), 1), photometric="rgb", planarconfig="separate", compression="lzma"
    ),
    "slice.dcm": lambda path: write_dicom(path, VOLUME[0].astype(np.int16)),
}
