"""From a dataset to scores by the command line alone, and folders with broken files."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of
from scipy import ndimage

from swin_umamba.data import CaseFiles
from swin_umamba.inference.files import predict_cases
from swin_umamba.inference.predictor import Predictor


def test_train_predict_evaluate(trained: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run = trained
    result = invoke("predict", run, dataset / "images", tmp_path / "out", "--save-probabilities")
    assert result.exit_code == 0, result.output
    mask = np.array(Image.open(tmp_path / "out" / "case0.png"))
    assert mask.shape == (40, 52)
    assert set(np.unique(mask)) <= {0, 255}  # the dataset's own numbers
    assert "nearly black" not in result.output
    found = np.load(tmp_path / "out" / "case0.npz")["probabilities"]
    assert found.shape == (2, 1, 40, 52)
    np.testing.assert_array_equal(255 * found.argmax(0)[0], mask)
    result = invoke("evaluate", tmp_path / "out", dataset)
    assert result.exit_code == 0, result.output


def test_finished_masks_are_left_and_overwritten_on_request(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, run = trained
    one = dataset / "images" / "case1.png"
    assert invoke("predict", run, one, tmp_path).exit_code == 0
    (tmp_path / "case1.png").write_bytes(b"mine")
    assert "1 already existed" in invoke("predict", run, one, tmp_path).output
    assert (tmp_path / "case1.png").read_bytes() == b"mine"
    assert invoke("predict", run, one, tmp_path, "--overwrite").exit_code == 0
    assert (tmp_path / "case1.png").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("values", "ending", "dark"),
    [
        ((0, 1), ".png", True),
        ((0, 1, 7), ".tif", True),
        ((0, 128, 255), ".png", False),
        ((0, 300), ".tif", True),
        ((0, 1), ".nii.gz", False),
    ],
)
def test_masks_that_look_black_are_announced(
    values: tuple[int, ...], ending: str, dark: bool, tmp_path: Path
) -> None:
    image = tmp_path / f"a{ending}"
    if ending == ".nii.gz":
        nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 1), np.uint8), np.eye(4)), image)
    else:
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(image)
    plan = plan_of(len(values), values=values)
    predictor = Predictor(Nearest(len(values)), plan=plan)  # type: ignore[arg-type]
    cases = [CaseFiles("a", (image,))]
    outcome = predict_cases(predictor, cases, tmp_path / "out")
    assert outcome.done == ("a",)
    assert outcome.dark == dark
    assert not predict_cases(predictor, cases, tmp_path / "out").dark


def test_a_broken_image_is_named_and_the_others_are_done(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, run = trained
    images = tmp_path / "images"
    images.mkdir()
    whole = (dataset / "images" / "case2.png").read_bytes()
    (images / "good.png").write_bytes(whole)
    (images / "torn.png").write_bytes(whole[:200])
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(images / "colour.png")
    result = invoke("predict", run, images, tmp_path / "out")
    assert result.exit_code == 1
    assert "torn.png" in result.output
    assert "colour.png" in result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"good.png", "predictions.jsonl", ".lock"}


def test_instances_overlays_and_mirroring(trained: tuple[Path, Path], tmp_path: Path) -> None:
    dataset, run = trained
    # As wide as windows fill evenly, so that those of the mirrored image are the same, mirrored.
    pixels = np.array(Image.open(dataset / "images" / "case3.png"))[:, :48]
    for folder, content in (("plain", pixels), ("mirrored", pixels[:, ::-1])):
        (tmp_path / folder).mkdir()
        Image.fromarray(content).save(tmp_path / folder / "case3.png")
    one = tmp_path / "plain" / "case3.png"
    options = ("--instances", "--overlays", "--mirror", "--save-probabilities")
    result = invoke("predict", run, one, tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    mask = np.array(Image.open(tmp_path / "out" / "case3.png"))
    objects = np.array(Image.open(tmp_path / "out" / "instances" / "case3.png"))
    expected, count = ndimage.label(mask > 0, np.ones((3, 3)))
    np.testing.assert_array_equal(objects, expected)
    assert count > 0
    picture = np.array(Image.open(tmp_path / "out" / "overlays" / "case3.png"))
    assert picture.shape[2] == 3
    assert (picture.max(2) > picture.min(2)).any()  # color over a gray image
    # The prediction of the mirrored image is the mirrored prediction.
    result = invoke("predict", run, tmp_path / "mirrored", tmp_path / "flipped", *options)
    assert result.exit_code == 0, result.output
    probabilities = [
        np.load(tmp_path / folder / "case3.npz")["probabilities"] for folder in ("out", "flipped")
    ]
    np.testing.assert_allclose(probabilities[1][..., ::-1], probabilities[0], atol=1e-4)
    # Scores are of the masks alone: the folders beside them do not disturb.
    result = invoke("predict", run, dataset / "images", tmp_path / "all", "--instances")
    assert result.exit_code == 0, result.output
    result = invoke("evaluate", tmp_path / "all", dataset)
    assert result.exit_code == 0, result.output


def test_a_half_precision_that_the_device_lacks_is_refused(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset, run = trained
    for amp, message in (("fp16", "needs a GPU"), ("int8", "expected one of")):
        result = invoke(
            "predict", run, dataset / "images", tmp_path / "out", "--amp", amp, "--device", "cpu"
        )
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_onnx_file_predicts_as_the_run(
    trained: tuple[Path, Path],
    tmp_path: Path,
    exported: Path,
) -> None:
    from swin_umamba.export.onnx_predictor import OnnxPredictor

    dataset, run = trained
    for kind, source in ((("--onnx",), exported), ((), run)):
        folder = tmp_path / (kind[0][2:] if kind else "torch")
        result = invoke("predict", *kind, source, dataset / "images", folder, "--instances")
        assert result.exit_code == 0, result.output
    for path in sorted((tmp_path / "torch").glob("*.png")):
        found, expected = (np.array(Image.open(p)) for p in (tmp_path / "onnx" / path.name, path))
        assert (found == expected).mean() > 0.999
    OnnxPredictor(exported).predict_file(dataset / "images" / "case0.png", tmp_path / "alone.png")
    expected = np.array(Image.open(tmp_path / "onnx" / "case0.png"))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "alone.png")), expected)
    # The name's ending says that it is an export; of another, only --onnx does.
    result = invoke("predict", exported, dataset / "images", tmp_path / "onnx", "--instances")
    assert "6 already existed" in result.output
    other = tmp_path / "model.bin"
    shutil.copy(exported, other)
    result = invoke("predict", other, dataset / "images", tmp_path / "else")
    assert result.exit_code == 1
    assert "use --onnx" in " ".join(result.output.split())
    assert invoke("predict", "--onnx", other, dataset / "images", tmp_path / "else").exit_code == 0
    result = invoke("predict", "--onnx", tmp_path / "none.onnx", dataset / "images", tmp_path)
    assert result.exit_code == 1
    assert "no ONNX file" in result.output
    result = invoke("predict", "--onnx", other, dataset / "images", tmp_path, "--last")
    assert result.exit_code == 1
    assert "not to ONNX files" in " ".join(result.output.split())


@pytest.mark.parametrize("name", ["best.safetensors", "plan.json", "config.json"])
def test_a_damaged_run_is_refused_by_name(
    trained: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    dataset, run = trained
    broken = tmp_path / "run"
    broken.mkdir()
    for path in filter(Path.is_file, run.iterdir()):
        content = path.read_bytes()
        (broken / path.name).write_bytes(
            content[: len(content) // 2] if path.name == name else content
        )
    result = invoke("predict", broken, dataset / "images", tmp_path / "out")
    assert result.exit_code == 1
    assert "error" in result.output
    assert not (tmp_path / "out").exists()
