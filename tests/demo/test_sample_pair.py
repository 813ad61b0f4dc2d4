"""Downloading the demo's image pair: from a wheel made here, and once from the real one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from swin_umamba.common import files
from swin_umamba.data import read_image, read_mask
from swin_umamba.demo import sample_pair
from swin_umamba.errors import UserError

CONTENTS = {"img2d.tif": b"an image" * 100, "mask2d.tif": b"a mask" * 100}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(folder))
    return folder


@pytest.fixture
def downloads(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[Path]]:
    """A wheel that 'pip' downloads, with matching hashes, and the folder it is downloaded to."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(sample_pair, "FILES", hashes)
    wheel = tmp_path / "stardist-0.9.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(f"stardist/data/images/{name}", content)
    brought: list[Path] = []

    def download(folder: Path) -> Path:
        copy = folder / wheel.name
        copy.write_bytes(wheel.read_bytes())
        brought.append(copy)
        return copy

    monkeypatch.setattr(sample_pair, "download_wheel", download)
    return wheel, brought


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_pair_is_fetched_once(cache: Path, downloads: tuple[Path, list[Path]]) -> None:
    _, brought = downloads
    for _ in range(2):
        image, mask = sample_pair.sample_pair()
        assert (image.name, mask.name) == ("img2d.tif", "mask2d.tif")
        assert image.read_bytes() == CONTENTS["img2d.tif"]
        assert mask.read_bytes() == CONTENTS["mask2d.tif"]
        assert image.is_relative_to(cache)
    assert len(brought) == 1
    assert not brought[0].exists()
    assert len(_files_below(cache)) == 2


def test_damaged_cache_is_fetched_again(cache: Path, downloads: tuple[Path, list[Path]]) -> None:
    image, mask = sample_pair.sample_pair()
    mask.unlink()
    sample_pair.sample_pair()
    image.write_bytes(b"damaged")
    sample_pair.sample_pair()
    assert image.read_bytes() == CONTENTS["img2d.tif"]
    assert len(downloads[1]) == 3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_wheel_leaves_nothing(
    cache: Path, downloads: tuple[Path, list[Path]], share: float
) -> None:
    wheel, _ = downloads
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"stardist.*damaged.*--image IMAGE --mask MASK"):
        sample_pair.sample_pair()
    assert not cache.exists()


def test_wheel_with_flipped_bytes_leaves_nothing(
    cache: Path, downloads: tuple[Path, list[Path]]
) -> None:
    wheel, _ = downloads
    whole = bytearray(wheel.read_bytes())
    whole[70] ^= 0xFF
    wheel.write_bytes(whole)
    with pytest.raises(UserError, match=r"stardist.*damaged"):
        sample_pair.sample_pair()
    assert not cache.exists()


def test_other_contents_are_refused_by_hash(
    cache: Path, downloads: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sample_pair.FILES, "mask2d.tif", "0" * 64)
    with pytest.raises(UserError, match=r"mask2d\.tif .*SHA-256 [0-9a-f]{64}, expected 0{64}"):
        sample_pair.sample_pair()
    assert not cache.exists()


def test_wheel_without_the_pair_is_refused(cache: Path, downloads: tuple[Path, list[Path]]) -> None:
    with zipfile.ZipFile(downloads[0], "w") as archive:
        archive.writestr("stardist/__init__.py", "")
    with pytest.raises(UserError, match=r"img2d\.tif"):
        sample_pair.sample_pair()
    assert not cache.exists()


def _interrupted_write(path: Path) -> None:
    with files.replacing(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt


def test_interrupted_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        _interrupted_write(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_cache_that_cannot_be_made_is_told(
    tmp_path: Path, downloads: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot make the folder"):
        sample_pair.sample_pair()


def test_offline_says_what_to_do(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"pip could not fetch stardist==0\.9\.2.*--mask MASK"):
        sample_pair.sample_pair()
    assert not cache.exists()


def test_python_without_pip_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        said = f"{sys.executable}: No module named pip\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match=r"No module named pip.*--image"):
        sample_pair.sample_pair()


def test_pip_that_hangs_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="no answer within 180 s"):
        sample_pair.sample_pair()


def test_another_wheel_serves_where_there_is_no_native_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if len(commands) == 1:
            return subprocess.CompletedProcess(command, 1, "", "No matching distribution found")
        (tmp_path / "stardist-0.9.2-cp311-cp311-win_amd64.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert sample_pair.download_wheel(tmp_path).name.endswith("win_amd64.whl")
    for command in commands:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert {"--no-deps", "--only-binary=:all:", "stardist==0.9.2"} <= set(command)
    assert not any(word.startswith("--platform") for word in commands[0])
    assert "--platform=win_amd64" in commands[1]


@pytest.mark.slow
def test_the_real_wheel_holds_the_pair(cache: Path) -> None:
    try:
        image, mask = sample_pair.sample_pair()
    except UserError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no package index: {error}")
    assert read_image(image).shape == (1, 512, 512)
    labels = read_mask(mask)
    assert labels.shape == (512, 512)
    assert len(set(labels.ravel().tolist()) - {0}) == 125
