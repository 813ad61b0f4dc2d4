"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), through SimpleITK."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from swin_umamba.data.io.pixels import Axes, FilePixels, Grid, ItkGeometry, Reading, vector
from swin_umamba.errors import UserError

_BLOCK = 1 << 16  # bytes
_HEADER = 1 << 16  # bytes within which a header must end
_META_BYTES = {
    **{"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4},
    **{"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8},
}
_RATIOS = {"raw": 1, "gzip": DEFLATE_RATIO, "text": 1, "hex": 0.5}
"""Maximum number of pixel bytes, or bytes of their text, per byte of the file."""
_MAX_AXES = 6  # channel types included; ITK prints what it does not understand to the terminal
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NRRD_BYTES = {"16": 2, "32": 4, "64": 8, "short": 2, "int": 4, "float": 4, "double": 8}


def read(path: Path, reading: Reading) -> FilePixels:
    """An image as (C, Z, H, W), the reverse of ITK's order, not reoriented."""
    import SimpleITK

    header = _header(path)
    pixels = math.prod(header.sizes)
    require_pixels(path, pixels, VOLUME_PIXELS, reading.max_pixels)
    if header.encoding not in _RATIOS:
        raise UserError(f"{path} has the encoding {header.encoding!r}, expected raw or gzip")
    # A number in text takes at least two characters, as does a byte in hexadecimal.
    claimed = 2 * pixels - 1 if header.encoding == "text" else pixels * header.bytes_each
    ratio = _RATIOS[header.encoding]
    require_bytes(path, claimed, ratio, header.offset, header.data)
    if header.encoding == "gzip" and not _is_nrrd(path):
        _require_unzipped(header)
    name = "NrrdImageIO" if _is_nrrd(path) else "MetaImageIO"
    with _silent(SimpleITK):
        image = SimpleITK.ReadImage(str(path), imageIO=name)
    values: npt.NDArray[Any] = SimpleITK.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel() > 1
    values = np.moveaxis(values, -1, 0) if channels else values[None]
    dimension = image.GetDimension()
    if dimension not in (2, 3):
        raise UserError(
            f"{path} has {dimension} axes, expected an image (x, y) or a volume (x, y, z); give"
            " time points as separate files"
        )
    flat = dimension == 2
    values = values[:, None] if flat else values
    spacing = check_spacing(vector([*image.GetSpacing(), *([1.0] if flat else [])][::-1]), path)
    axes = np.eye(3)
    axes[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
    origin = vector([*image.GetOrigin(), *([0.0] if flat else [])])
    if not np.isfinite([*axes.ravel(), *origin]).all():
        raise UserError(f"{path} has a NaN or infinite position: correct its header")
    direction: Axes = (vector(axes[:, 2]), vector(axes[:, 1]), vector(axes[:, 0]))
    return FilePixels(values, spacing, ItkGeometry(image.GetSize()), origin, direction)


def write(path: Path, stack: npt.NDArray[Any], like: Grid) -> None:
    """Write labels (Z, H, W), compressed, with the geometry and dimension of an image."""
    import SimpleITK

    flat = isinstance(like.geometry, ItkGeometry) and len(like.geometry.shape) == 2
    image = SimpleITK.GetImageFromArray(stack[0] if flat else stack)
    dimension = 2 if flat else 3
    image.SetSpacing(like.spacing[::-1][:dimension])
    if like.origin is not None and like.direction is not None:
        image.SetOrigin(like.origin[:dimension])
        axes = np.array(like.direction[::-1]).T[:dimension, :dimension]
        image.SetDirection(axes.ravel().tolist())
    name = "NrrdImageIO" if _is_nrrd(path) else "MetaImageIO"
    with replacing(path) as partial, damage_of_writing(path):
        SimpleITK.WriteImage(image, str(partial), useCompression=True, imageIO=name)


def data_file(path: Path) -> Path:
    """The file with the pixels of a header."""
    with damage_named(path):
        return _header(path).data


@contextmanager
def damage_of_writing(path: Path) -> Iterator[None]:
    """Turn ITK's exceptions on writing into UserError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"cannot write {path}: {reason}") from error


@dataclass(frozen=True)
class _Header:
    """Checks before ITK reads: the sizes of all axes, and the minimum number of bytes per value.

    data: the file with the pixels, at or after `offset`.
    """

    sizes: tuple[int, ...]
    bytes_each: int
    encoding: str
    data: Path
    offset: int


def _require_unzipped(header: _Header) -> None:
    """Raise zlib.error or ValueError for damage that ITK only prints."""
    stream, length = zlib.decompressobj(), 0
    with header.data.open("rb") as file:
        file.seek(header.offset)
        while not stream.eof and (block := file.read(_BLOCK)):
            length += len(stream.decompress(block))
    if not stream.eof or length < math.prod(header.sizes) * header.bytes_each:
        raise ValueError("its compressed pixels end early")


def _is_nrrd(path: Path) -> bool:
    return path.suffix.lower() in (".nrrd", ".nhdr")


def _header(path: Path) -> _Header:
    with path.open("rb") as file:
        start = file.read(_HEADER)
    return _nrrd_header(path, start) if _is_nrrd(path) else _meta_header(path, start)


def _meta_header(path: Path, start: bytes) -> _Header:
    fields: dict[str, str] = {}
    offset = 0
    for line in start.splitlines(keepends=True):
        offset += len(line)
        _require_text(line)
        key, found, value = line.decode("latin-1").partition("=")
        if not found:
            raise ValueError("its header has a line without =")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    else:
        raise ValueError("its header does not end")
    sizes = _sizes(fields["DimSize"])
    channels = _sizes(fields.get("ElementNumberOfChannels", "1"))
    if _sizes(fields["NDims"]) != (len(sizes),):
        raise ValueError(f"its header has NDims {fields['NDims'][:40]} but {len(sizes)} sizes")
    kind = fields["ElementType"].upper().removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in _META_BYTES:
        raise ValueError(f"its header has the ElementType {kind[:40]!r}")
    binary = fields.get("BinaryData", "True").lower() not in ("false", "0")
    zipped = fields.get("CompressedData", "False").lower() in ("true", "1")
    data, offset = _data(path, fields["ElementDataFile"], "LOCAL", offset)
    # ITK allocates this many bytes.
    if int(fields.get("CompressedDataSize", 0)) > data.stat().st_size - offset:
        raise ValueError("its compressed pixels end early")
    encoding = "text" if not binary else "gzip" if zipped else "raw"
    return _Header((*sizes, *channels), _META_BYTES[kind], encoding, data, offset)


def _nrrd_header(path: Path, start: bytes) -> _Header:
    lines = start.replace(b"\r\n", b"\n").split(b"\n")
    if not lines[0].startswith(b"NRRD"):
        raise ValueError("it does not begin with NRRD")
    fields: dict[str, str] = {}
    offset = len(lines[0]) + 1
    for line in lines[1:]:
        offset += len(line) + 1
        if not line.strip():
            break
        _require_text(line)
        key, found, value = line.decode("latin-1").partition(":")
        if found and not line.startswith(b"#"):
            fields[key.strip().lower()] = value.lstrip("=").strip()
    kind = fields["type"].lower().removesuffix("_t")
    each = next((size for end, size in _NRRD_BYTES.items() if kind.endswith(end)), 1)
    encoding = fields.get("encoding", "raw").lower()
    encoding = {"gz": "gzip", "txt": "text", "ascii": "text"}.get(encoding, encoding)
    data, offset = _data(path, fields.get("data file", fields.get("datafile", "")), "", offset)
    return _Header(_sizes(fields["sizes"]), each, encoding, data, offset)


def _require_text(line: bytes) -> None:
    if _CONTROL.search(line):
        raise ValueError("its header holds control characters")


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(value) for value in text.split())
    if not 1 <= len(sizes) <= _MAX_AXES or any(size < 1 for size in sizes):
        raise ValueError(f"its header has the sizes {text[:40]!r}")
    return sizes


def _data(path: Path, name: str, here: str, offset: int) -> tuple[Path, int]:
    """The pixel file, and the offset of the pixels; headers may not name files outside of their
    folder."""
    if name == here:
        return path, offset
    parts = Path(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "LIST" in name or "%" in name:
        raise UserError(
            f"{path} names its pixels {name!r}, expected one file in the folder of its header"
        )
    data = path.parent.joinpath(*parts)
    if not data.is_file():
        raise UserError(f"no file at {data}, which {path} names for its pixels")
    return data, 0


@contextmanager
def _silent(simple_itk: Any) -> Iterator[None]:
    """Silence ITK's warnings."""
    shown = simple_itk.ProcessObject.GetGlobalWarningDisplay()
    simple_itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        simple_itk.ProcessObject.SetGlobalWarningDisplay(shown)
