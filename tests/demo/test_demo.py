"""The demo and the command line, end to end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from train_helpers import discs
from typer.testing import CliRunner, Result

from swin_umamba import Predictor
from swin_umamba import __version__ as version
from swin_umamba.cli import app
from swin_umamba.data import read_image, read_mask
from swin_umamba.demo import run as demo
from swin_umamba.demo import sample_pair
from swin_umamba.drawing.plots import save_picture
from swin_umamba.errors import UserError
from swin_umamba.metrics import dice

RUN_FILES = [
    ".lock",
    "best.safetensors",
    "config.json",
    "curves.png",
    "log.jsonl",
    "model.safetensors",
    "picture.png",
    "state.pt",
]


def _run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def _one_line_error(result: Result) -> str:
    """The error that a command ended with, which must be a single line on stderr."""
    assert result.exit_code == 1
    (line,) = [x for x in result.stderr.splitlines() if x and not x.startswith("warning:")]
    assert line.startswith("error: ")
    return line


def test_demo_on_ones_own_pair(pair_files: tuple[Path, Path], tmp_path: Path) -> None:
    image, mask = pair_files
    out = tmp_path / "out"
    result = _run(
        *("demo", "--image", image, "--mask", mask, "--out", out, "--iterations", "3"),
        *("--seed", "5", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == RUN_FILES
    config = json.loads((out / "config.json").read_text())
    assert (config["seed"], config["iterations"]) == (5, 3)
    assert "Held-out quadrant: DSC" in result.output
    assert "3 iterations" in result.output
    assert "1 CPU thread" in result.output
    assert str(out / "picture.png") in result.output
    with Image.open(out / "picture.png") as picture:
        assert picture.width == 1600
        colours = picture.convert("RGB").getcolors(1 << 24)
        assert colours is not None
        assert len(colours) > 500


@pytest.mark.slow
def test_dsc_told_is_that_of_the_saved_weights(
    pair_files: tuple[Path, Path], tmp_path: Path
) -> None:
    pair = demo.load_pair(*pair_files)
    result = demo.run_demo(pair, tmp_path / "run", iterations=25, device="cpu")
    held_out = demo.quadrants(pair)[3]
    np.testing.assert_array_equal(held_out.mask, (pair.mask > 0)[48:, 48:])
    labels = Predictor.from_run(tmp_path / "run", checkpoint="last", device="cpu")(
        pair.image[:, 48:, 48:]
    )
    assert result.train.dsc == pytest.approx(dice(labels, held_out.mask, 2)[0])


def test_quadrants_cover_the_image_once(pair_files: tuple[Path, Path]) -> None:
    pair = demo.load_pair(*pair_files)
    odd = demo.Pair("odd", pair.image[:, :95, :91], pair.mask[:95, :91])
    upper_left, upper_right, lower_left, lower_right = (c.mask for c in demo.quadrants(odd))
    whole = np.block([[upper_left, upper_right], [lower_left, lower_right]])
    np.testing.assert_array_equal(whole, odd.mask > 0)


def test_large_images_are_cut_to_their_centre(tmp_path: Path) -> None:
    pixels = np.arange(70 * 1101, dtype=np.uint32).reshape(70, 1101).astype(np.uint16)
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, pixels)
    pair = demo.load_pair(tmp_path / "a.tif", tmp_path / "b.tif")
    np.testing.assert_array_equal(pair.mask, pixels[:, 38:1062])
    np.testing.assert_array_equal(pair.image[0], pair.mask)


def test_colour_images_train(tmp_path: Path) -> None:
    pixels, mask = discs(64, seed=1)
    colour = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    pair = demo.load_pair(tmp_path / "image.tif", tmp_path / "mask.tif")
    result = demo.run_demo(pair, tmp_path / "run", iterations=1, device="cpu")
    assert result.train.model.in_channels == 3
    assert result.picture.is_file()


def test_held_out_quadrant_without_objects(pair_files: tuple[Path, Path], tmp_path: Path) -> None:
    image, mask = pair_files
    labels = tifffile.imread(mask)
    labels[48:, 48:] = 0
    tifffile.imwrite(mask, labels)
    out = tmp_path / "out"
    result = _run("demo", "--image", image, "--mask", mask, "--out", out, "--iterations", "1")
    assert result.exit_code == 0, result.output
    assert (out / "picture.png").is_file()


def test_bad_pairs_end_in_one_line_and_leave_nothing(
    pair_files: tuple[Path, Path], tmp_path: Path
) -> None:
    image, mask = pair_files
    out = tmp_path / "out"

    def error(*words: str | Path) -> str:
        line = _one_line_error(_run("demo", "--out", out, "--iterations", "1", *words))
        assert not out.exists()
        return line

    assert "--image is given without --mask" in error("--image", image)
    assert "--mask is given without --image" in error("--mask", mask)
    assert "no file at" in error("--image", tmp_path / "none.tif", "--mask", mask)
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, tifffile.imread(mask)[:80])
    line = error("--image", image, "--mask", small)
    assert "image.tif is 96x96" in line
    assert "small.tif is 80x96" in line
    tifffile.imwrite(small, np.ones((20, 20), np.uint8))
    assert "expected at least 64" in error("--image", small, "--mask", small)
    tifffile.imwrite(small, np.zeros((96, 96), np.uint8))
    assert "0 in all three training quadrants" in error("--image", image, "--mask", small)
    small.write_bytes(small.read_bytes()[:90])
    assert "small.tif is damaged" in error("--image", small, "--mask", mask)
    both = ("--image", image, "--mask", mask)
    assert "'nonsense'" in error(*both, "--backend", "nonsense")
    assert "'nonsense'" in error(*both, "--device", "nonsense")
    if not torch.cuda.is_available():
        assert "'cuda'" in error(*both, "--backend", "cuda")


def test_what_can_be_refused_is_refused_before_the_download(
    pair_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(folder: Path) -> Path:
        raise AssertionError("nothing must be fetched")

    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sample_pair, "download_wheel", download)
    assert "already holds files" in _one_line_error(_run("demo", "--out", tmp_path))
    words = ("demo", "--out", tmp_path / "out", "--backend", "nonsense")
    assert "'nonsense'" in _one_line_error(_run(*words))
    assert sorted(tmp_path.iterdir()) == sorted(pair_files)


def test_failed_download_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))

    def download(folder: Path) -> Path:
        wheel = folder / "stardist-0.9.2-py3-none-any.whl"
        wheel.write_bytes(b"PK half a wheel")
        return wheel

    monkeypatch.setattr(sample_pair, "download_wheel", download)
    line = _one_line_error(_run("demo", "--out", tmp_path / "out"))
    assert "damaged" in line
    assert "--image IMAGE --mask MASK" in line
    assert list(tmp_path.iterdir()) == []


def test_default_folder_is_the_next_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.free_folder() == Path("swin-umamba-demo")
    Path("swin-umamba-demo").mkdir()
    assert demo.free_folder() == Path("swin-umamba-demo")
    Path("swin-umamba-demo", "log.jsonl").touch()
    assert demo.free_folder() == Path("swin-umamba-demo-2")


def test_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "picture.png").mkdir()
    zeros = np.zeros((8, 8), np.int64)
    with pytest.raises(UserError, match=r"picture\.png"):
        save_picture(
            tmp_path / "picture.png",
            np.zeros((1, 8, 8), np.float32),
            zeros,
            zeros,
            [{"iteration": 1, "loss": 1.0}],
            title="",
            prediction_title="",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_doctor() -> None:
    result = _run("doctor")
    assert result.exit_code == 0, result.output
    for word in (version, torch.__version__, "pytorch", "reference", "usable", "monai"):
        assert word in result.output


def test_summary() -> None:
    result = _run("summary", "swin_umamba_d", "--size", "64", "64")
    assert result.exit_code == 0, result.output
    assert "27,497,720" in result.output
    line = _one_line_error(_run("summary", "unet"))
    assert (
        "unknown model 'unet', expected one of swin_umamba, swin_umamba_d, swin_umamba_v1" in line
    )


@pytest.mark.parametrize(
    "words", [("nonsense",), ("demo", "--iterations", "0"), ("summary", "--size", "0", "4")]
)
def test_wrong_usage_ends_with_status_2(words: tuple[str, ...]) -> None:
    assert _run(*words).exit_code == 2


def test_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "swin_umamba.demo.run", raising=False)
    for name in [name for name in sys.modules if name.startswith("swin_umamba.data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    line = _one_line_error(_run("demo"))
    assert "this needs tifffile: pip install 'swin-umamba[train]'" in line


def test_help_loads_no_torch_extras() -> None:
    code = (
        "import sys; from swin_umamba.cli import app; "
        "print([m for m in ('monai', 'matplotlib', 'tifffile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_real_demo_reaches_its_dsc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real pair, with fewer iterations than by default."""
    try:
        image, mask = sample_pair.sample_pair()
    except UserError as error:
        if "could not fetch" not in str(error):
            raise
        pytest.skip(f"no package index: {error}")
    started = time.perf_counter()
    pair = demo.Pair("nuclei", read_image(image), read_mask(mask))
    result = demo.run_demo(pair, tmp_path / "run", iterations=60, minutes=2, device="cpu")
    assert result.train.dsc is not None
    assert result.train.dsc > 0.75
    assert time.perf_counter() - started < 150
