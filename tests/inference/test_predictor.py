"""From an image to its mask: the plan is followed, and anything wrong is an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predict_helpers import Nearest, invoke, plan_of
from safetensors.torch import load_file, save_file
from torch import Tensor

from swin_umamba import Predictor
from swin_umamba.data import Intensity, Plan, read_raw
from swin_umamba.errors import UserError
from swin_umamba.inference import budget
from swin_umamba.inference.network import NonFiniteError

Trained = tuple[Path, Path]


def test_a_run_s_plan_normalises_and_resamples(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    facts = json.loads((run / "plan.json").read_text())
    intensity = {"mean": 90.0, "std": 60.0, "median": 80.0, "low": 20.0, "high": 200.0}
    facts |= {"normalization": ["ct"], "intensities": [intensity], "spacing": [0.8, 1.5]}
    (run / "plan.json").write_text(json.dumps(facts))
    path = trained[0] / "images" / "case0.png"
    raw = read_raw(path)
    predictor = Predictor.from_run(run, device="cpu")
    seen: list[Tensor] = []
    model = predictor.model
    assert isinstance(model, torch.nn.Module)
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    found = predictor(path)
    assert found.shape == (40, 52)
    expected = Plan.load(run / "plan.json").preprocess(raw)
    assert expected.shape == (1, 1, 50, 35)
    np.testing.assert_array_equal(seen[0][0, 0].numpy(), expected[0, 0, :32, :32])
    # The same from an array and from read_raw, with the files' spacing.
    pixels = raw.pixels[:, 0]
    np.testing.assert_array_equal(predictor(pixels, spacing=1), found)
    np.testing.assert_array_equal(predictor(pixels, spacing=(1.0, 1.0)), found)
    np.testing.assert_array_equal(predictor(raw.pixels, spacing=raw.spacing)[0], found)
    np.testing.assert_array_equal(predictor(raw)[0], found)
    np.testing.assert_array_equal(predictor([path]), found)
    # Without a spacing an array has the plan's.
    np.testing.assert_array_equal(predictor(pixels), predictor(pixels, spacing=(0.8, 1.5)))
    result = invoke("predict", run, path, tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    mask = np.array(Image.open(tmp_path / "out" / "case0.png"))
    np.testing.assert_array_equal(mask, 255 * found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_arrays_have_the_axes_of_files(axis: int) -> None:
    plan = plan_of(3, axis=axis, spacing=(2.0, 0.5))
    predictor = Predictor(Nearest(3), plan=plan)
    volume = np.random.default_rng(0).uniform(0, 2, (1, 6, 7, 8)).astype(np.float32)
    labels = predictor(volume, spacing=(1.0, 1.5, 2.0))
    assert (labels.shape, labels.dtype) == ((6, 7, 8), np.int64)
    assert predictor.probabilities(volume, spacing=(1.0, 1.5, 2.0)).shape == (3, 6, 7, 8)
    # A slice is segmented as it is within its volume.
    slices = np.moveaxis(volume, axis + 1, 1)
    spacing = [s for i, s in enumerate((1.0, 1.5, 2.0)) if i != axis]
    for i, expected in enumerate(np.moveaxis(labels, axis, 0)):
        np.testing.assert_array_equal(predictor(slices[:, i], spacing=spacing), expected)
    # Three numbers are those of the volume, with that along the slicing axis among them.
    found = predictor(slices[:, 2], spacing=(1.0, 1.5, 2.0))
    np.testing.assert_array_equal(found, np.moveaxis(labels, axis, 0)[2])


class Counting(Nearest):
    """Remembers the number of windows of each batch."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.windows: list[int] = []

    def __call__(self, windows: Tensor) -> Tensor:
        self.windows.append(len(windows))
        return super().__call__(windows)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [1.0, 2.0])
def test_a_picture_is_one_slice_whichever_axis_volumes_are_sliced_along(
    axis: int, spacing: float, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 3, (20, 28)).astype(np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    network, plan = Counting(3), plan_of(3, axis=axis, spacing=(spacing, spacing))
    predictor = Predictor(network, plan=plan)
    found = predictor(path)
    assert network.windows == [1]  # not one for each row or column
    assert found.shape == (20, 28)
    if spacing == 1:
        np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(predictor(pixels[None], spacing=1), found)
    np.testing.assert_array_equal(predictor(pixels[None, None], spacing=1)[0], found)
    assert predictor.probabilities(path).shape == (3, 20, 28)
    # In training too.
    raw = read_raw(path)
    size = (round(20 / spacing), round(28 / spacing))
    assert plan.preprocess(raw).shape == (1, 1, *size)
    classes = plan.preprocess_labels(pixels[None].astype(np.int64), raw)
    assert classes.shape == (1, *size)
    assert plan.restore(classes, raw).shape == (1, 20, 28)


@pytest.mark.parametrize(
    ("image", "spacing", "message"),
    [
        (np.zeros((4, 4)), None, "expected real numbers"),
        (np.zeros((1, 0, 4)), None, "expected real numbers"),
        (np.zeros((1, 4, 4), complex), None, "expected real numbers"),
        (np.full((1, 4, 4), np.nan), None, "NaN or infinite pixels"),
        (np.zeros((3, 4, 4)), None, "the array: got 3 channels, expected 1"),
        (np.zeros((1, 4, 4)), (0.0, 1.0), "spacing: got"),
        (np.zeros((1, 4, 4)), (1.0, np.inf), "spacing: got"),
        (np.zeros((1, 2, 4, 4)), (1.0,) * 4, "spacing: got"),
        (np.zeros((1, 4, 4)), ("wide", 1.0), "spacing: got"),
        (np.zeros((1, 4, 4)), ((1.0, 1.0), (1.0, 1.0)), "spacing: got"),
        (np.zeros((1, 4, 4)), ((1.0,), (1.0, 1.0)), "spacing: got"),
        ("nowhere.png", None, "no file at nowhere.png"),
    ],
)
def test_bad_images_are_errors_that_say_so(
    image: np.ndarray | str, spacing: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Predictor(Nearest(2), plan=plan_of(2))(image, spacing=spacing)


def test_an_absurd_spacing_is_refused_before_memory_is_taken() -> None:
    predictor = Predictor(Nearest(2), plan=plan_of(2))
    with pytest.raises(UserError, match=r"the array has the spacing .* more than the limit"):
        predictor(np.zeros((1, 64, 64), np.float32), spacing=1e5)
    with pytest.raises(UserError, match="windows of 100000x100000 pixels would take"):
        Predictor(Nearest(2), plan=plan_of(2), patch_size=(100_000, 100_000))


def test_the_budget_is_of_the_logits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(Nearest(9), plan=plan_of(9))
    monkeypatch.setattr(budget, "BUDGET", 4 * 9 * 32 * 100)
    predictor(np.zeros((1, 40, 100), np.float32))
    with pytest.raises(UserError, match="logits of a row of windows would take"):
        predictor(np.zeros((1, 40, 101), np.float32))


class Broken(Nearest):
    """Returns one non-finite value, in a corner."""

    def __init__(self, value: float) -> None:
        super().__init__(2)
        self.value = value

    def __call__(self, windows: Tensor) -> Tensor:
        logits = super().__call__(windows)
        logits[-1, 0, -1, -1] = self.value
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error_that_names_the_model(value: float) -> None:
    with pytest.raises(NonFiniteError, match="Nearest gives NaN or infinite logits"):
        Predictor(Broken(value), plan=plan_of(2))(np.zeros((1, 40, 40), np.float32))


def test_weights_that_are_not_finite_are_refused_before_any_image(
    trained: Trained, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    tensors = load_file(run / "best.safetensors")
    name = max(tensors, key=lambda each: tensors[each].numel())
    tensors[name].view(-1)[3] = np.nan
    config = _metadata(run / "best.safetensors")
    save_file(tensors, run / "best.safetensors", config)
    result = invoke("predict", run, trained[0] / "images", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 1
    assert f"NaN or infinite values in {name}" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_the_backend_of_the_training_machine_is_ignored(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[1], run)
    metadata = _metadata(run / "best.safetensors")
    metadata["config"] = json.dumps({**json.loads(metadata["config"]), "backend": "cuda"})
    save_file(load_file(run / "best.safetensors"), run / "best.safetensors", metadata)
    config = json.loads((run / "config.json").read_text())
    config["model_options"]["backend"] = "cuda"
    (run / "config.json").write_text(json.dumps(config | {"device": "cuda:7"}))
    path = trained[0] / "images" / "case0.png"
    expected = Predictor.from_run(trained[1], device="cpu")(path)
    np.testing.assert_array_equal(Predictor.from_run(run, device="cpu")(path), expected)


def _metadata(path: Path) -> dict[str, str]:
    from swin_umamba.weights.saved import read_metadata

    return read_metadata(path)


def test_public_names() -> None:
    import swin_umamba
    from swin_umamba import inference

    assert inference.Predictor is swin_umamba.Predictor
    assert {inference.Ensemble.__name__, inference.predict_files.__name__} <= set(inference.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = inference.nonsense


def test_a_network_and_a_plan_must_fit() -> None:
    with pytest.raises(UserError, match=": 1 channels and 3 classes, expected 1 and 2"):
        Predictor(Nearest(3), plan=plan_of(2))
    with pytest.raises(ValueError, match="patch_size: got None"):
        Predictor(Nearest(3))


def test_a_model_without_a_plan_keeps_the_grid(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.random.default_rng(0).normal(size=(9, 8, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.3, 3, 2, 1])), tmp_path / "v.nii")
    predictor = Predictor(Nearest(2), patch_size=(4, 4))
    labels = predictor(tmp_path / "v.nii")
    scored = (volume - volume.mean()) / volume.std()
    np.testing.assert_array_equal(labels, scored.T > 0.5)


def test_intensities_of_ct_are_the_training_s() -> None:
    fixed = Intensity(mean=100.0, std=10.0, median=100.0, low=80.0, high=120.0)
    plan = plan_of(3, normalization=("ct",), intensities=(fixed,))
    image = np.array([[[0.0, 100.0, 110.0, 500.0]]])
    found = Predictor(Nearest(3), plan=plan)(image)
    np.testing.assert_array_equal(found, [[0, 0, 1, 2]])
