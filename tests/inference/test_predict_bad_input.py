"""Errors in prediction name their cause, and no file is lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of
from safetensors.torch import load_file, save_file

from swin_umamba import Predictor, create_model
from swin_umamba.data import group_images
from swin_umamba.data.io.raw import RawImage
from swin_umamba.errors import UserError
from swin_umamba.inference import targets as predicting
from swin_umamba.inference.files import predict_cases, predict_files
from swin_umamba.weights import save_weights

Trained = tuple[Path, Path]


def _words(output: str) -> str:
    return " ".join(output.split())


def test_images_are_not_written_over(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    images = tmp_path / "images"
    shutil.copytree(dataset / "images", images)
    before = {path: path.read_bytes() for path in images.iterdir()}
    for inputs, output in (
        (images, images),
        (images / "case1.png", images),
        (images, images / ".." / "images"),
    ):
        reason = "is the folder of the images" if inputs.is_dir() else "is one of the images"
        for options in ((), ("--overwrite",)):
            result = invoke("predict", run, inputs, output, *options)
            assert result.exit_code == 1
            assert reason in _words(result.output)
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_masks_that_are_removed_meanwhile_are_told(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    out = tmp_path / "out"

    def remove(done: int, total: int) -> None:
        if done == 2:
            shutil.rmtree(out)

    with pytest.raises(UserError, match="2 files were removed during the prediction"):
        predict_files(run, dataset / "images", out, device="cpu", on_progress=remove)


def test_links_in_a_circle_are_told(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    (tmp_path / "loop").symlink_to("loop")
    for inputs, output in (
        (dataset / "images", tmp_path / "loop"),
        (tmp_path / "loop", tmp_path / "out"),
    ):
        result = invoke("predict", run, inputs, output)
        assert result.exit_code == 1
        assert "bug in swin-umamba" not in _words(result.output)
        assert "loop" in _words(result.output)


def test_a_broken_image_does_not_end_the_job_wherever_the_masks_go(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run = trained
    images = tmp_path / "images"
    shutil.copytree(dataset / "images", images)
    (images / "a.png").write_bytes((images / "case0.png").read_bytes()[:200])
    # A name that is part of every path must not be mistaken for the output's.
    monkeypatch.chdir(tmp_path)
    result = invoke("predict", run, images, ".")
    assert result.exit_code == 1
    assert "a.png" in result.output
    assert {path.name for path in tmp_path.glob("*.png")} == {f"case{i}.png" for i in range(6)}


@pytest.mark.parametrize(("channels", "classes"), [(3, 2), (1, 5)])
def test_weights_of_another_model_are_refused(
    trained: Trained, tmp_path: Path, channels: int, classes: int
) -> None:
    dataset, run = trained
    other = tmp_path / "run"
    shutil.copytree(run, other)
    model = create_model(
        "swin_umamba_d", in_channels=channels, out_channels=classes, dims=(4, 8), depths=(1, 1)
    )
    save_weights(model, other / "best.safetensors")
    result = invoke("predict", other, dataset / "images", tmp_path / "out")
    assert result.exit_code == 1
    assert f"another model: {channels} channels and {classes} classes" in _words(result.output)
    assert not (tmp_path / "out").exists()


def test_bad_images_of_all_kinds_do_not_end_a_job(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.random.default_rng(0).integers(0, 3, (9, 8, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a_good.nii")
    shutil.copy(tmp_path / "a_good.nii", tmp_path / "z_good.nii")
    whole = (tmp_path / "a_good.nii").read_bytes()
    edits = {"dim": (40, "<h", 200), "code": (70, "<h", 9999), "offset": (108, "<f", -1e30)}
    edits |= {"affine": (280, "<f", np.nan), "zoom": (80, "<f", np.nan), "size": (42, "<h", 32000)}
    for name, (place, kind, value) in edits.items():
        content = bytearray(whole)
        struct.pack_into(kind, content, place, value)
        (tmp_path / f"{name}.nii").write_bytes(content)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([900, 900, 1, 1])), tmp_path / "wide.nii")
    (tmp_path / "short.nii").write_bytes(whole[:400])
    (tmp_path / "text.TIF").write_text("not a picture")
    stack = np.zeros((6, 32, 32), np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack", imagej=True)
    content = (tmp_path / "stack.tif").read_bytes()
    (tmp_path / "stack.tif").write_bytes(content[: len(content) // 2])
    plan = plan_of(2, spacing=(0.01, 0.01))
    outcome = predict_cases(
        Predictor(Nearest(2), plan=plan), group_images(tmp_path), tmp_path / "out"
    )
    assert outcome.done == ("a_good", "z_good")
    bad = {*edits, "wide", "short", "text", "stack"}
    assert set(outcome.failed) == bad
    for name, reason in outcome.failed.items():
        assert name in reason
    assert "more than the limit of 16 GiB" in outcome.failed["wide"]


def test_an_image_that_memory_does_not_hold_does_not_end_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("large.png", "small.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name)
    segment = Predictor.segment

    def failing(self: Predictor, raw: RawImage, *given: object, **options: object) -> np.ndarray:
        if raw.paths[0].stem == "large":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return segment(self, raw, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "segment", failing)
    predictor = Predictor(Nearest(2), plan=plan_of(2))
    outcome = predict_cases(predictor, group_images(tmp_path), tmp_path / "out")
    assert outcome.done == ("small",)
    assert "needs more memory than there is" in outcome.failed["large"]


def test_a_dicom_series_is_one_image_and_its_slices_are_watched(
    trained: Trained, tmp_path: Path
) -> None:
    pytest.importorskip("pydicom")
    from image_files import write_series

    volume = np.random.default_rng(0).integers(0, 255, (3, 40, 52)).astype(np.uint16)
    write_series(tmp_path / "scans" / "ct", volume)
    for _ in range(2):
        result = invoke("predict", trained[1], tmp_path / "scans" / "ct", tmp_path / "out")
        assert result.exit_code == 0, result.output
    assert "1 already existed" in result.output
    assert (tmp_path / "out" / "ct.nii.gz").is_file()
    result = invoke("predict", trained[1], tmp_path / "scans", tmp_path / "out")
    assert "1 already existed" in result.output
    write_series(tmp_path / "scans" / "ct", volume[:, ::-1])
    result = invoke("predict", trained[1], tmp_path / "scans", tmp_path / "out")
    assert "1 of them recomputed because their images changed" in result.output


def test_weights_with_options_of_another_model_are_refused(
    trained: Trained, tmp_path: Path
) -> None:
    dataset, run = trained
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = {"name": "swin_umamba_d", "in_channels": 1, "out_channels": 2, "nonsense": 3}
    tensors = load_file(run / "best.safetensors")
    save_file(tensors, other / "best.safetensors", {"config": json.dumps(config)})
    result = invoke("predict", other, dataset / "images", tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "nonsense" in result.output


def test_nothing_to_segment_is_an_error(trained: Trained, tmp_path: Path) -> None:
    run = trained[1]
    (tmp_path / "empty").mkdir()
    for inputs, message in (("empty", "holds no images"), ("nowhere", "no folder at")):
        result = invoke("predict", run, tmp_path / inputs, tmp_path / "out")
        assert result.exit_code == 1
        assert message in _words(result.output)


def test_only_what_is_missing_is_written(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    one = dataset / "images" / "case2.png"
    assert invoke("predict", run, one, tmp_path).exit_code == 0
    (tmp_path / "case2.png").write_bytes(b"mine")
    options = ("--save-probabilities", "--instances", "--overlays")
    result = invoke("predict", run, one, tmp_path, *options)
    assert result.exit_code == 0, result.output
    asked = ("case2.npz", "instances/case2.png", "overlays/case2.png")
    assert all((tmp_path / name).is_file() for name in asked)
    assert (tmp_path / "case2.png").read_bytes() == b"mine"
    assert "1 already existed" in invoke("predict", run, one, tmp_path, *options).output


def test_more_instances_than_a_png_numbers(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, run = trained
    monkeypatch.setattr(predicting, "MOST_IN_PNG", 0)
    result = invoke("predict", run, dataset / "images", tmp_path, "--instances")
    assert result.exit_code == 1
    assert "give the image as TIFF" in _words(result.output)


def test_a_full_disk_ends_the_job_and_spoils_nothing(trained: Trained, tmp_path: Path) -> None:
    run = trained[1]
    # Noise does not compress: its overlay is large, its mask small.
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 52), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(images / name)
    (output / "overlays").mkdir(parents=True)
    (output / "overlays" / "a.png").write_bytes(b"mine")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        result = invoke("predict", run, images, output, "--overlays", "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert result.exit_code == 1
    assert "cannot write" in _words(result.output)
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert files <= {"overlays/a.png", "predictions.jsonl", ".lock"}
    assert (output / "overlays" / "a.png").read_bytes() == b"mine"


def test_a_file_for_a_folder_is_told(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    (tmp_path / "out").write_bytes(b"mine")
    result = invoke("predict", run, dataset / "images", tmp_path / "out")
    assert result.exit_code == 1
    assert "cannot make the folder" in _words(result.output)
    assert (tmp_path / "out").read_bytes() == b"mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told(trained: Trained, tmp_path: Path) -> None:
    dataset, run = trained
    (tmp_path / "out").mkdir(mode=0o500)
    result = invoke("predict", run, dataset / "images", tmp_path / "out")
    assert result.exit_code == 1
    assert "cannot write" in _words(result.output)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_a_folder_that_takes_nothing_is_told_to_root_too(trained: Trained) -> None:
    dataset, run = trained
    for options in ((), ("--save-probabilities",), ("--overwrite",)):
        result = invoke("predict", run, dataset / "images", "/proc/out", *options)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert "/proc/out: No such file" in _words(result.output)
