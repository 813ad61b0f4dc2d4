"""TIFF: colors, compressions, stacks of every writer, and damage."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_helpers import noise
from PIL import Image

from swin_umamba.data import read_image, read_labels, read_raw
from swin_umamba.errors import UserError

STACK = noise((6, 40, 30), 0)


def write_packed_tiff(
    path: Path, rows: np.ndarray, bits: int, kind: str, colours: np.ndarray
) -> None:
    """Rows of packed samples as an uncompressed TIFF of one strip."""
    height, width = rows.shape[0], rows.shape[1] * 8 // bits
    photometric = ["miniswhite", "minisblack", "rgb", "palette"].index(kind)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    entries += [
        struct.pack("<HHII", 273, 4, 1, start + colours.nbytes),
        struct.pack("<HHII", 279, 4, 1, rows.nbytes),
        struct.pack("<HHII", 320, 3, colours.size, start),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=_tag)) + bytes(4)
    header = b"II*\0" + struct.pack("<I", 8)
    path.write_bytes(header + directory + colours.astype("<u2").tobytes() + rows.tobytes())


def _tag(entry: bytes) -> int:
    return struct.unpack("<H", entry[:2])[0]


def _smooth(shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grey = (100 + 50 * np.sin(rows / 7) + 40 * np.cos(columns / 5)).astype(np.uint8)
    return grey if len(shape) == 2 else np.stack([grey, 255 - grey, grey // 2], axis=2)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize(
    "compression", [None, "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd"]
)
def test_what_pillow_writes(tmp_path: Path, mode: str, compression: str | None) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(_smooth((40, 48, 3))).convert(mode).save(path, compression=compression)
    with Image.open(path) as picture:
        expected = np.asarray(picture if mode == "L" else picture.convert("RGB"))
    # Pillow lets libtiff convert some YCbCr, which rounds differently.
    found = read_image(path).astype(int)
    difference = np.abs(found - np.moveaxis(np.atleast_3d(expected), 2, 0))
    assert difference.max() <= (1 if mode == "YCbCr" else 0)


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4", "tiff_lzw", None])
def test_one_bit(tmp_path: Path, compression: str | None) -> None:
    black = _smooth((40, 48)) > 100
    Image.fromarray(black).save(tmp_path / "x.tif", compression=compression)
    found = read_image(tmp_path / "x.tif")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], black)
    labels = read_labels(tmp_path / "x.tif")
    np.testing.assert_array_equal(labels.labels[0], black)
    assert labels.shown == (0, 255)


@pytest.mark.parametrize("compression", ["jpeg2000", "jpegxl", "webp", "lerc", "png", "zstd"])
def test_what_imagecodecs_reads(tmp_path: Path, compression: str) -> None:
    pixels = _smooth((40, 48, 3))
    options = {"compressionargs": {"lossless": True}} if compression in ("jpegxl", "webp") else {}
    tifffile.imwrite(
        tmp_path / "x.tif", pixels, photometric="rgb", compression=compression, **options
    )
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), pixels.transpose(2, 0, 1))


def test_subsampled_colours(tmp_path: Path) -> None:
    pixels = _smooth((40, 48, 3))
    Image.fromarray(pixels).save(tmp_path / "x.tif", compression="jpeg", quality=95)
    found = read_image(tmp_path / "x.tif").transpose(1, 2, 0).astype(int)
    assert np.abs(found - pixels).max() < 30


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_white_may_be_the_lowest_number(tmp_path: Path, dtype: type) -> None:
    pixels = _smooth((40, 48)).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", pixels, photometric="miniswhite")
    found = read_image(tmp_path / "x.tif")[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.invert(pixels))


def test_palettes(tmp_path: Path) -> None:
    indices = _smooth((40, 48)) // 64
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :4] = 257 * np.array([[0, 255, 0, 9], [0, 0, 255, 8], [0, 0, 0, 7]])
    tifffile.imwrite(tmp_path / "x.tif", indices, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_labels(tmp_path / "x.tif").labels[0], indices)
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), (colours // 257)[:, indices])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["miniswhite", "minisblack", "palette"])
def test_few_bits(tmp_path: Path, bits: int, kind: str) -> None:
    """As Pillow shows them; masks by their numbers."""
    highest = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, highest + 1, (9, 16))
    colours = np.zeros((3, highest + 1), np.uint16)
    colours[0, 1], colours[2] = 257 * 255, 257 * 3 * np.arange(highest + 1)
    rows = np.unpackbits(pixels.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    path = tmp_path / "x.tif"
    write_packed_tiff(path, np.packbits(rows.reshape(9, -1), axis=1), bits, kind, colours)
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB") if kind == "palette" else picture)
    found = read_image(path)
    np.testing.assert_array_equal(found, np.moveaxis(np.atleast_3d(shown), 2, 0))
    numbers = highest - pixels if kind == "miniswhite" else pixels
    np.testing.assert_array_equal(read_labels(path).labels[0], numbers)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", [False, True])
def test_alpha(tmp_path: Path, dtype: type, planar: bool) -> None:
    pixels = np.concatenate([_smooth((40, 48, 3)), np.full((40, 48, 1), 255)], axis=2)
    pixels = pixels.astype(dtype) * (np.iinfo(dtype).max // 255)
    for alpha, channels in ((pixels[0, 0, 3], 3), (7, 4)):
        pixels[0, 0, 3] = alpha
        tifffile.imwrite(
            tmp_path / "x.tif",
            pixels.transpose(2, 0, 1) if planar else pixels,
            photometric="rgb",
            planarconfig="separate" if planar else "contig",
            extrasamples=["unassalpha"],
        )
        found = read_image(tmp_path / "x.tif")
        np.testing.assert_array_equal(found, pixels[..., :channels].transpose(2, 0, 1))


def _pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in STACK:
            file.write(page, photometric="minisblack", contiguous=False, metadata=None)


def _by_pillow(compression: str | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        first, *others = [Image.fromarray(page) for page in STACK]
        first.save(path, save_all=True, append_images=others, compression=compression)

    return write


STACKS: dict[str, Callable[[Path], None]] = {
    "pages": _pages,
    "shaped": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack"),
    "shaped, deflated": lambda path: tifffile.imwrite(
        path, STACK, photometric="minisblack", compression="zlib"
    ),
    "big": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", bigtiff=True),
    "ImageJ": lambda path: tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"}),
    "OME": lambda path: tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX"}),
    "OME, deflated": lambda path: tifffile.imwrite(
        path, STACK, ome=True, metadata={"axes": "ZYX"}, compression="zlib"
    ),
    "Pillow": _by_pillow(None),
    "Pillow, LZW": _by_pillow("tiff_lzw"),
}


@pytest.mark.parametrize("kind", STACKS)
def test_stacks_whole_and_cut(tmp_path: Path, kind: str) -> None:
    """Truncation anywhere is an error, or the file is read correctly: never 1 slice of 6."""
    path = tmp_path / "x.tif"
    STACKS[kind](path)
    np.testing.assert_array_equal(read_raw(path).pixels[0], STACK)
    whole = path.read_bytes()
    for percent in range(1, 100):
        path.write_bytes(whole[: len(whole) * percent // 100])
        if percent <= 90:
            with pytest.raises(UserError, match=r"x\.tif"):
                read_raw(path)
            continue
        with contextlib.suppress(UserError):
            np.testing.assert_array_equal(read_raw(path).pixels[0], STACK)


def test_images_of_unlike_sizes_in_one_file(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(STACK[0], photometric="minisblack")
        file.write(STACK[0, :20, :15], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_raw(tmp_path / "x.tif").pixels[0, 0], STACK[0])
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(STACK[0], photometric="minisblack")
        file.write(STACK[0, :20, :15], photometric="minisblack")
    with pytest.raises(UserError, match=r"x\.tif holds 2 images of different sizes"):
        read_raw(tmp_path / "x.tif")


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for compression in (None, "zlib", "lzw"):
        tifffile.imwrite(path, STACK[0], photometric="minisblack", compression=compression)
        with tifffile.TiffFile(path, mode="r+b") as file:
            file.pages.first.tags["ImageWidth"].overwrite(20_000)
            file.pages.first.tags["ImageLength"].overwrite(20_000)
            file.pages.first.tags["RowsPerStrip"].overwrite(20_000)
        with pytest.raises(UserError, match=r"x\.tif .* claims 400000000 bytes"):
            read_raw(path)


@pytest.mark.parametrize("options", [{"ome": True}, {"ome": True, "bigtiff": True}])
def test_a_stack_whose_axes_are_cut_off_is_damaged(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    """OME's description is at the end; without it the pages would pass for slices."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise((6, 64, 64), 0), photometric="minisblack", **options)
    whole, shape = path.read_bytes(), read_raw(path).pixels.shape
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"a\.ome\.tif is damaged"):
        read_raw(path)
    path.write_bytes(whole)
    assert read_raw(path).pixels.shape == shape
