"""A job continues only if the same model and the same images made what exists."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predict_helpers import invoke

from swin_umamba.common.files import sha256
from swin_umamba.common.locks import locked
from swin_umamba.inference import targets as predicting
from swin_umamba.inference.record import RECORD, Manifest, facts_of

Trained = tuple[Path, Path]


def words(output: str) -> str:
    return " ".join(output.split())


@pytest.fixture
def images(trained: Trained, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("case0.png", "case1.png"):
        shutil.copy2(trained[0] / "images" / name, folder)
    return folder


def other_weights(run: Path, tmp_path: Path) -> Path:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.copy(run / "model.safetensors", other / "best.safetensors")
    if sha256(run / "model.safetensors") == sha256(run / "best.safetensors"):
        from safetensors.torch import load_file

        from swin_umamba.weights import read_config
        from swin_umamba.weights.saved import save_tensors

        tensors = load_file(run / "best.safetensors")
        halves = {name: tensor / 2 for name, tensor in tensors.items()}
        config = read_config(run / "best.safetensors")
        save_tensors(halves, other / "best.safetensors", {}, config)
    return other


def test_what_made_a_file_is_written_down(trained: Trained, images: Path, tmp_path: Path) -> None:
    run, out = trained[1], tmp_path / "out"
    assert invoke("predict", run, images, out, "--overlays").exit_code == 0
    entries = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
    assert {entry["file"] for entry in entries} == {
        f"{folder}case{i}.png" for folder in ("", "overlays/") for i in (0, 1)
    }
    for entry in entries:
        assert entry["made_by"]["model"] == sha256(run / "best.safetensors")
        image = images / Path(entry["file"]).name
        assert entry["images"][0]["sha256"] == sha256(image)
        assert entry["images"][0]["size"] == image.stat().st_size


def test_masks_of_another_model_or_other_options_are_not_taken_for_done(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    other = other_weights(run, tmp_path)
    assert invoke("predict", run, images / "case0.png", out).exit_code == 0
    before = (out / "case0.png").read_bytes()
    for source, options, reason in (
        (other, (), "model "),
        (run, ("--mirror",), "mirror False, now True"),
    ):
        result = invoke("predict", source, images, out, *options)
        assert result.exit_code == 1
        for part in (
            "case0.png in",
            "was made by another model or with other options",
            reason,
            "--overwrite",
        ):
            assert part in words(result.output)
        assert (out / "case0.png").read_bytes() == before
        assert not (out / "case1.png").exists()  # before any work is done
    assert invoke("predict", other, images, out, "--overwrite").exit_code == 0
    result = invoke("predict", other, images, out)
    assert result.exit_code == 0
    assert "2 already existed" in result.output
    assert invoke("predict", run, images, out).exit_code == 1


def test_what_was_not_asked_to_be_overwritten_stays_another_models(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out, one = trained[1], tmp_path / "out", images / "case0.png"
    assert invoke("predict", run, one, out, "--overlays").exit_code == 0
    assert invoke("predict", run, one, out, "--mirror", "--overwrite").exit_code == 0
    assert invoke("predict", run, one, out, "--mirror").exit_code == 0
    result = invoke("predict", run, one, out, "--mirror", "--overlays")
    assert result.exit_code == 1
    assert "overlays/case0.png in" in words(result.output)


def test_a_changed_image_is_done_anew_and_a_copied_one_is_not(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    assert invoke("predict", run, images, out).exit_code == 0
    for path in images.iterdir():
        os.utime(path, (1, 1))
    assert "2 already existed" in invoke("predict", run, images, out).output
    for name in ("case0.png", "case1.png"):
        (out / name).write_bytes(b"mine")
    pixels = np.array(Image.open(images / "case0.png"))
    Image.fromarray(pixels[::-1]).save(images / "case0.png")
    result = invoke("predict", run, images, out)
    assert result.exit_code == 0, result.output
    assert "1 mask in" in result.output
    assert "1 of them recomputed because their images changed, 1 already existed" in words(
        result.output
    )
    assert (out / "case0.png").read_bytes() != b"mine"
    assert (out / "case1.png").read_bytes() == b"mine"
    assert "2 already existed" in invoke("predict", run, images, out).output


def test_masks_of_which_nothing_is_known_are_not_taken_for_done(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    out.mkdir()
    (out / "case1.png").write_bytes(b"mine")
    for record in (None, b"", b"\xff\x00 none of ours\n[1]\n3\n" + b'{"file": "case1.png"'):
        if record is not None:
            (out / RECORD).write_bytes(record)
        result = invoke("predict", run, images, out)
        assert result.exit_code == 1
        assert f"made by an unknown model: {RECORD} there does not list" in words(result.output)
        assert "--overwrite" in result.output
        assert (out / "case1.png").read_bytes() == b"mine"
        assert not (out / "case0.png").exists()
    # A truncated line does not spoil the next one.
    assert invoke("predict", run, images, out, "--overwrite").exit_code == 0
    assert "2 already existed" in invoke("predict", run, images, out).output


def test_a_job_killed_while_it_writes_goes_on(
    trained: Trained, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = trained[1], tmp_path / "out"
    write = predicting.write_labels

    def killed(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "write_labels", killed)
        invoke("predict", run, images, out)
    assert (out / "case0.png").is_file()
    result = invoke("predict", run, images, out)
    assert result.exit_code == 0, result.output
    assert "1 mask in" in result.output
    assert "1 already existed" in result.output


def test_jobs_side_by_side_keep_each_others_lines(tmp_path: Path) -> None:
    names = [f"case{i}.png" for i in range(40)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    records = [Manifest(tmp_path / "out", {"model": "a"}) for _ in range(4)]

    def note(i: int) -> None:
        images = facts_of([tmp_path / names[i]])
        records[i % 4].note([tmp_path / "out" / names[i]], images)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(note, range(40)))
    files = {tmp_path / "out" / name: [tmp_path / name] for name in names}
    assert Manifest(tmp_path / "out", {"model": "a"}).outdated(files) == set()


@pytest.mark.slow
def test_an_onnx_file_and_its_run_are_told_apart(
    trained: Trained, images: Path, tmp_path: Path, exported: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    for _ in range(2):
        result = invoke("predict", "--onnx", exported, images, out)
        assert result.exit_code == 0, result.output
    result = invoke("predict", run, images, out)
    assert result.exit_code == 1
    assert "runtime onnxruntime, now torch" in words(result.output)


def test_two_jobs_do_not_write_into_one_folder_at_once(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    with locked(out, "prediction"):
        result = invoke("predict", run, images, out)
        assert result.exit_code == 1
        assert f"{out} is in use by another prediction" in words(result.output)
        assert not list(out.glob("*.png"))
    assert invoke("predict", run, images, out).exit_code == 0


def test_what_a_killed_job_left_half_written_is_removed(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    run, out = trained[1], tmp_path / "out"
    ours = out / "overlays"
    ours.mkdir(parents=True)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from swin_umamba.common.partial import partial_file\n"
        "with partial_file(Path(sys.argv[1])) as path: os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(ours / "case0.png")], check=False)
    assert list(ours.iterdir())
    assert invoke("predict", run, images, out, "--overlays").exit_code == 0
    assert {path.name for path in ours.iterdir()} == {"case0.png", "case1.png"}


def test_masks_of_earlier_versions_are_not_taken_for_ours(
    trained: Trained, images: Path, tmp_path: Path
) -> None:
    """They were decided before they were resampled."""
    run, out = trained[1], tmp_path / "out"
    assert invoke("predict", run, images, out).exit_code == 0
    lines = [json.loads(line) for line in (out / RECORD).read_text().splitlines()]
    for line in lines:
        del line["made_by"]["decided"]
    (out / RECORD).write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = invoke("predict", run, images, out)
    assert result.exit_code == 1
    assert "decided unknown, now on the image's grid" in words(result.output)
