"""Check sizes that files claim before using them, and translate the errors of damaged files."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path

import tifffile
from PIL import Image, UnidentifiedImageError

from swin_umamba.data.io.pixels import Vector
from swin_umamba.errors import UserError

VARIABLE = "SWIN_UMAMBA_MAX_PIXELS"
MOST_PIXELS = 2**31  # the highest limit that can be set
VOLUME_PIXELS = 2**30  # the limit for everything but pictures: 1024 x 1024 x 1024
MIN_SPACING, MAX_SPACING = 1e-6, 1e3  # in the file's unit, usually mm
_BLOCK = 1 << 20  # bytes
# Deflate expands a byte to at most 1032, TIFF's LZW and PackBits to fewer than 4096.
DEFLATE_RATIO, LZW_RATIO = 1032, 4096

# Exceptions that the libraries raise for damaged files.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    BufferError,
    struct.error,
    zlib.error,
    LZMAError,
    tifffile.TiffFileError,
    UnidentifiedImageError,
)


@contextmanager
def damage_named(path: Path, *others: type[Exception]) -> Iterator[None]:
    """others: exceptions of the format's own library.

    others: exceptions of the format's own library.
    """
    known: tuple[type[Exception], ...] = (*_DAMAGE, *others)
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} is too large for this machine's memory") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} is too large: {error}; the environment variable {VARIABLE} (or max_pixels)"
            " allows more"
        ) from error
    except ModuleNotFoundError as error:
        raise missing_package(path, error) from error
    except known as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        if "'imagecodecs'" in reason:
            raise UserError(f"{path}: {reason}: {_install('imagecodecs')}") from error
        raise UserError(f"{path} is damaged or not an image: {reason}") from error


def missing_package(path: Path, error: ModuleNotFoundError) -> UserError:
    """How to install support for a file's format."""
    package = (error.name or "").partition(".")[0]
    return UserError(f"{path} needs the package {package}: {_install(package)}")


def _install(package: str) -> str:
    extra = "train" if package in ("imagecodecs", "nibabel") else "formats"
    return f"pip install 'swin-umamba[{extra}]'"


def pixel_limit(default: int, asked: int | None) -> int:
    """The maximum number of pixels: `asked`, else $SWIN_UMAMBA_MAX_PIXELS, else the default."""
    if asked is None:
        text = os.environ.get(VARIABLE, "").strip()
        if not text:
            return default
        try:
            asked = int(text)
        except ValueError:
            asked = 0
    if not 1 <= asked <= MOST_PIXELS:
        raise UserError(
            f"max_pixels or {VARIABLE}: got {asked or text}, expected a whole number from 1 to"
            f" {MOST_PIXELS}"
        )
    return asked


def require_pixels(path: Path, pixels: int, default: int, asked: int | None) -> None:
    """Raise UserError, naming the file and the remedy, for more pixels than the limit."""
    limit = pixel_limit(default, asked)
    if pixels > limit:
        way = (
            f"set the environment variable {VARIABLE}={pixels} (or max_pixels) to read it"
            if pixels <= MOST_PIXELS
            else f"at most {MOST_PIXELS} can be read, with {VARIABLE}"
        )
        raise UserError(f"{path} is too large: {pixels} pixels, the limit is {limit}; {way}")


def require_bytes(
    path: Path, claimed: int, ratio: float = 1, offset: int = 0, data: Path | None = None
) -> None:
    """Raise UserError if the file is too short for the pixel bytes that its header claims.

    ratio: maximum expansion of its compression. offset: where the pixels begin. data: the file that
    contains them, if it is another.
    """
    length = (data or path).stat().st_size
    if claimed > ratio * max(length - offset, 0):
        raise UserError(
            f"{path} is damaged or not an image: its header claims {claimed} bytes of pixels, which"
            f" cannot be in a file of {length} bytes"
        )


def require_inflated(path: Path, most: int, window: int, offset: int) -> None:
    """Raise UserError if deflated content from `offset` on expands to more than `most` bytes.

    window: as wbits in zlib. Damage raises zlib.error.
    """
    stream, length, rest = zlib.decompressobj(window), 0, b""
    with path.open("rb") as file:
        file.seek(offset)
        while not stream.eof and (block := rest or file.read(_BLOCK)):
            length += len(stream.decompress(block, _BLOCK))
            rest = stream.unconsumed_tail
            if length > most:
                raise UserError(f"{path} is too large: more than {most} bytes once it is inflated")


def check_spacing(spacing: Vector, path: Path) -> Vector:
    """The spacing, if valid. Raises UserError, naming the file, if not."""
    if not all(MIN_SPACING <= value <= MAX_SPACING for value in spacing):
        raise UserError(
            f"{path} has the spacing {spacing}, expected three numbers above 0, from"
            f" {MIN_SPACING:g} to {MAX_SPACING:g}; correct it in the file's header"
        )
    return spacing
