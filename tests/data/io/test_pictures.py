"""PNG, JPEG and BMP: the pixels shown by image viewers, however they are stored."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_helpers import blob, noise, write_pixels
from PIL import Image, ImageOps

from swin_umamba.data import read_image, read_labels, read_raw
from swin_umamba.errors import UserError


def write_png(path: Path, pixels: np.ndarray, bits: int, colour: int, **chunks: bytes) -> None:
    """(H, W, C) as a PNG with this many bits per sample; color: PNG's color type."""
    rows = b""
    for row in pixels.astype(np.uint16):
        if bits == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            samples = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
            rows += b"\0" + np.packbits(samples.ravel()).tobytes()

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    others = b"".join(chunk(name.encode(), data) for name, data in chunks.items())
    content = chunk(b"IHDR", header) + others + chunk(b"IDAT", zlib.compress(rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_images_and_masks_are_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    picture = Image.fromarray(blob((12, 16), 200) + noise((12, 16), 0) // 8)
    path, exif = tmp_path / f"x{ending}", Image.Exif()
    exif[274] = orientation
    if ending == ".tif":
        picture.save(path, tiffinfo={274: orientation})
    else:
        picture.save(path, exif=exif)
    # Pillow applies the wrong orientation to TIFFs that are not square.
    like = path if ending == ".jpg" else tmp_path / "like.png"
    if like != path:
        picture.save(like, exif=exif)
    with Image.open(like) as stored:
        shown = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path)[0], shown)
    np.testing.assert_array_equal(read_labels(path).labels[0], shown)


@pytest.mark.parametrize(
    ("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "RGB", "LA", "RGBA"]
)
@pytest.mark.parametrize("opaque", [True, False])
def test_png_keeps_all_16_bits(tmp_path: Path, colour: int, channels: int, opaque: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (9, 7, channels))
    if opaque and channels in (2, 4):
        pixels[..., -1] = 65535
    write_png(tmp_path / "x.png", pixels, 16, colour)
    kept = channels - 1 if opaque and channels in (2, 4) else channels
    found = read_image(tmp_path / "x.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels[..., :kept].transpose(2, 0, 1))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_png_is_alpha(tmp_path: Path, bits: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (9, 7, 3))
    write_png(tmp_path / "x.png", pixels, bits, 2, tRNS=struct.pack(">3H", *pixels[2, 3]))
    found = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(found[:3], pixels.transpose(2, 0, 1))
    highest = np.iinfo(found.dtype).max
    hidden = (pixels == pixels[2, 3]).all(-1)
    np.testing.assert_array_equal(found[3], np.where(hidden, 0, highest))
    write_png(tmp_path / "x.png", pixels, bits, 2, tRNS=struct.pack(">3H", 201, 0, 0))
    assert len(read_image(tmp_path / "x.png")) == 3, "a color that no pixel has"


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits(tmp_path: Path, bits: int) -> None:
    """Images as shown, but of 1 bit 0 and 1; masks both ways."""
    highest = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, highest + 1, (9, 8, 1))
    write_png(tmp_path / "x.png", pixels, bits, 0)
    shown = pixels[..., 0] * 255 // highest
    found = read_image(tmp_path / "x.png")[0]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[..., 0] if bits == 1 else shown)
    labels = read_labels(tmp_path / "x.png")
    np.testing.assert_array_equal(labels.labels[0], pixels[..., 0])
    np.testing.assert_array_equal(labels.as_shown()[0], shown)


def test_palettes(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 3, (9, 8)).astype(np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png").labels[0], indices)
    colours = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), colours)
    picture.save(tmp_path / "x.png", transparency=bytes([0, 255, 255]))
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png").labels[0], indices)
    found = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(found[:3], colours)
    np.testing.assert_array_equal(found[3], np.where(indices == 0, 0, 255))


def test_palettes_of_black_and_white_in_either_order(tmp_path: Path) -> None:
    mask = blob((9, 8))
    for indices, palette in ((mask, [0, 0, 0, 255, 255, 255]), (1 - mask, [255] * 3 + [0] * 3)):
        picture = Image.fromarray(indices)
        picture.putpalette(palette)
        picture.save(tmp_path / "x.png")
        labels = read_labels(tmp_path / "x.png")
        np.testing.assert_array_equal(labels.labels[0], mask)
        np.testing.assert_array_equal(labels.as_shown()[0], mask * 255)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "RGB"])
def test_jpeg_colours(tmp_path: Path, mode: str) -> None:
    Image.fromarray(noise((16, 24, 3), 0)).convert(mode).save(tmp_path / "x.jpg")
    with Image.open(tmp_path / "x.jpg") as picture:
        expected = np.asarray(picture if mode == "L" else picture.convert("RGB"))
    found = read_image(tmp_path / "x.jpg")
    np.testing.assert_array_equal(found, np.moveaxis(np.atleast_3d(expected), 2, 0))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bmp(tmp_path: Path, mode: str) -> None:
    Image.fromarray(noise((16, 24, 3), 0)).convert(mode).save(tmp_path / "x.BMP")
    with Image.open(tmp_path / "x.BMP") as picture:
        expected = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    found = read_image(tmp_path / "x.BMP")
    np.testing.assert_array_equal(found, np.moveaxis(np.atleast_3d(expected), 2, 0))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".nii.gz"])
def test_too_large_is_told_so_and_can_be_allowed(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{ending}"
    write_pixels(path, noise((2, 30, 40) if "nii" in ending else (30, 40), 0))
    monkeypatch.setenv("SWIN_UMAMBA_MAX_PIXELS", "1000")
    with pytest.raises(
        UserError, match=rf"x{ending} is too large.*SWIN_UMAMBA_MAX_PIXELS"
    ) as raised:
        read_raw(path)
    assert "damaged" not in str(raised.value)
    assert read_raw(path, max_pixels=2400).pixels.shape[-2:] == (30, 40)
    assert read_labels(path, max_pixels=2400).labels.shape[-2:] == (30, 40)
    with pytest.raises(UserError, match=r"max_pixels.* got 4294967296"):
        read_raw(path, max_pixels=2**32)
    monkeypatch.setenv("SWIN_UMAMBA_MAX_PIXELS", "many")
    with pytest.raises(UserError, match=r"SWIN_UMAMBA_MAX_PIXELS: got many"):
        read_raw(path)


def test_more_than_pillow_allows_is_read_where_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise((30, 40), 0)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"x\.png is too large.*SWIN_UMAMBA_MAX_PIXELS"):
        read_raw(tmp_path / "x.png")
    assert read_raw(tmp_path / "x.png", max_pixels=1200).pixels.shape == (1, 1, 30, 40)
    assert Image.MAX_IMAGE_PIXELS == 100
