"""Reading files, normalizing, and cutting patches."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from swin_umamba.data import Case, PatchSampler, normalize, read_image, read_mask
from swin_umamba.errors import UserError


def _case(height: int = 40, width: int = 30, channels: int = 1) -> Case:
    """The image counts the pixels, and the mask is 1 in one corner."""
    image = np.arange(channels * height * width, dtype=np.float32)
    mask = np.zeros((height, width), np.int64)
    mask[-3:, -3:] = 1
    return Case("case", image.reshape(channels, height, width), mask)


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("grey.png", np.uint8, (1, 7, 5)),
        ("deep.png", np.uint16, (1, 7, 5)),
        ("colour.png", np.uint8, (3, 7, 5)),
        ("deep.tif", np.uint16, (1, 7, 5)),
        ("real.tiff", np.float32, (1, 7, 5)),
        ("colour.tif", np.uint8, (3, 7, 5)),
    ],
)
def test_images_are_read_as_written(
    tmp_path: Path, name: str, dtype: type, shape: tuple[int, int, int]
) -> None:
    pixels = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    written = pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)
    if name.endswith("png"):
        imageio.imwrite(tmp_path / name, written)
    else:
        tifffile.imwrite(tmp_path / name, written)
    found = read_image(tmp_path / name)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("name", ["a.tif", "b.tif", "c.png", "d.jpg"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_truncated_files_are_refused_by_name(
    tmp_path: Path, name: str, read: object, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)
    path = tmp_path / name
    if name == "b.tif":
        tifffile.imwrite(path, pixels, compression="zlib")
    elif name == "a.tif":
        tifffile.imwrite(path, pixels)
    else:
        imageio.imwrite(path, pixels)
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.3, 0.7, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=name) as caught:
            read(path)  # type: ignore[operator]
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(UserError, match=f"no file at .*{name}"):
        read_image(path)
    path.write_text("not an image")
    with pytest.raises(UserError, match=name):
        read_image(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=name):
        read_image(path)


def test_image_that_claims_absurd_sizes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imageio.imwrite(tmp_path / "bomb.png", np.zeros((100, 100), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


def test_wrong_kinds_of_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.zeros((5, 6, 7), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match=r"shape \(5, 6, 7\)"):
        read_image(path)
    tifffile.imwrite(path, np.full((5, 6), np.nan, np.float32))
    with pytest.raises(UserError, match="NaN"):
        read_image(path)
    with pytest.raises(UserError, match="float32, expected whole numbers"):
        read_mask(path)
    tifffile.imwrite(path, np.full((5, 6), -1, np.int16))
    with pytest.raises(UserError, match="negative"):
        read_mask(path)
    tifffile.imwrite(path, np.zeros((5, 6, 3), np.uint8), photometric="rgb")
    with pytest.raises(UserError, match="expected a mask"):
        read_mask(path)


def test_normalize_per_channel() -> None:
    image = np.random.default_rng(0).integers(0, 60000, (2, 50, 40)).astype(np.uint16)
    image[1] = 7
    found = normalize(image)
    assert found.dtype == np.float32
    assert found[0].mean() == pytest.approx(0, abs=1e-6)
    assert found[0].std() == pytest.approx(1, abs=1e-6)
    assert (found[1] == 0).all()


def test_case_refuses_what_does_not_fit() -> None:
    good = _case()
    with pytest.raises(ValueError, match="mask is int64"):
        Case("a", good.image, good.mask[:-1])
    with pytest.raises(ValueError, match="image is float64"):
        Case("a", good.image.astype(np.float64), good.mask)


def test_patches_are_cut_with_their_masks() -> None:
    case = _case()
    padded_image = np.pad(case.image, ((0, 0), (0, 8), (0, 12)))
    padded_mask = np.pad(case.mask, ((0, 8), (0, 12)))
    sampler = PatchSampler([case], patch_size=(8, 12), batch_size=3, augment=False)
    for index in range(20):
        images, masks = sampler.batch(index)
        assert images.shape == (3, 1, 8, 12)
        assert masks.shape == (3, 8, 12)
        for image, mask in zip(images.numpy(), masks.numpy(), strict=True):
            top, left = divmod(int(image[0, 0, 0]), 30)
            window = (slice(top, top + 8), slice(left, left + 12))
            np.testing.assert_array_equal(image, padded_image[(slice(None), *window)])
            np.testing.assert_array_equal(mask, padded_mask[window])


def test_a_third_of_each_batch_holds_foreground() -> None:
    case = _case(200, 200)
    sampler = PatchSampler([case], patch_size=(8, 8), batch_size=6, augment=False)
    batches = [sampler.batch(i)[1] for i in range(50)]
    assert all(bool(masks[-2:].flatten(1).any(1).all()) for masks in batches)
    elsewhere = np.mean([masks[:-2].flatten(1).any(1).float().mean() for masks in batches])
    assert elsewhere < 0.1


def test_images_smaller_than_the_patch_are_padded() -> None:
    case = _case(5, 30)
    sampler = PatchSampler([case], patch_size=(8, 40), batch_size=2, foreground=0.0, augment=False)
    images, masks = sampler.batch(0)
    assert images.shape == (2, 1, 8, 40)
    first = int(images[0, 0].flatten(1).any(1).numpy().argmax())
    assert first in (1, 2)
    np.testing.assert_array_equal(images[0, :, first : first + 5, 5:35].numpy(), case.image)
    assert images.sum() == 2 * case.image.sum()
    assert masks.sum() == 2 * case.mask.sum()


def test_no_foreground_at_all_still_gives_patches() -> None:
    case = _case()
    empty = Case("empty", case.image, np.zeros_like(case.mask))
    _, masks = PatchSampler([empty], patch_size=(8, 8), batch_size=2).batch(0)
    assert masks.sum() == 0


def test_same_seed_same_patches() -> None:
    def two(seed: int) -> list[np.ndarray]:
        sampler = PatchSampler([_case()], patch_size=(8, 8), batch_size=2, seed=seed)
        return [sampler.batch(i)[0].numpy() for i in range(2)]

    np.testing.assert_array_equal(two(1), two(1))
    assert not np.array_equal(two(1), two(2))


def test_cases_of_unlike_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 3\] channels"):
        PatchSampler([_case(), _case(channels=3)], patch_size=(8, 8), batch_size=2)
    with pytest.raises(ValueError, match="cases"):
        PatchSampler([], patch_size=(8, 8), batch_size=2)


def test_processes_share_the_batch_that_one_makes() -> None:
    def part(**options: int) -> tuple[torch.Tensor, torch.Tensor]:
        sampler = PatchSampler([_case()], patch_size=(8, 8), batch_size=6, seed=3, **options)
        return sampler.batch(5)

    parts = [part(rank=rank, world_size=3) for rank in range(3)]
    for whole, *shares in zip(part(), *parts, strict=True):
        assert torch.equal(whole, torch.cat(shares))
    with pytest.raises(ValueError, match="batch_size: got 6, expected a multiple of 4"):
        part(world_size=4)
