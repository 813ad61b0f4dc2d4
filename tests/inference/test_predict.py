"""Sliding-window prediction."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import TINY_MODEL, discs

from swin_umamba import Predictor, create_model
from swin_umamba.common.devices import pick_device
from swin_umamba.data import Case, normalize
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import predict, predict_labels, predict_stack
from swin_umamba.models import SegmentationModel
from swin_umamba.train import TrainConfig, train


@pytest.fixture
def model() -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("swin_umamba_d", in_channels=2, out_channels=3, **TINY_MODEL)


def _image(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, height, width), dtype=np.float32)


def test_one_window_is_the_model_alone(model: SegmentationModel) -> None:
    image = _image(32, 24)
    found = predict(model, image, patch_size=(32, 24))
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(image)[None])[0].softmax(1)[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(33, 50), (16, 100), (7, 9), (40, 40)])
def test_any_size_gives_probabilities_of_that_size(
    model: SegmentationModel, height: int, width: int
) -> None:
    found = predict(model, _image(height, width), patch_size=(32, 32))
    assert found.shape == (3, height, width)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_labels_are_the_most_probable_classes(model: SegmentationModel) -> None:
    image = _image(50, 60)
    expected = predict(model, image, patch_size=(32, 32)).argmax(0)
    np.testing.assert_array_equal(predict_labels(model, image, patch_size=(32, 32)), expected)


def test_windows_far_from_a_change_do_not_see_it(model: SegmentationModel) -> None:
    image = _image(32, 128)
    changed = image.copy()
    changed[:, :, 100:] = 0
    before, after = (predict(model, each, patch_size=(32, 32)) for each in (image, changed))
    np.testing.assert_array_equal(before[:, :, :64], after[:, :, :64])
    assert not np.allclose(before[:, :, 100:], after[:, :, 100:])


def test_the_batch_of_windows_changes_nothing(model: SegmentationModel) -> None:
    one, many = (predict(model, _image(50, 60), patch_size=(32, 32), batch_size=n) for n in (1, 5))
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-6)


def test_several_images_are_as_each_alone(model: SegmentationModel) -> None:
    images = np.stack([_image(40, 50), -_image(40, 50), 2 * _image(40, 50)])
    found = predict_stack(model, images, patch_size=(32, 32), batch_size=5)
    assert found.shape == (3, 3, 40, 50)
    for image, probabilities in zip(images, found, strict=True):
        alone = predict(model, image, patch_size=(32, 32))
        np.testing.assert_allclose(probabilities, alone, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="images: got shape"):
        predict_stack(model, images[0], patch_size=(32, 32))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_the_model_is_left_as_it_was(
    model: SegmentationModel, training: bool, deep_supervision: bool
) -> None:
    model.train(training)
    model.deep_supervision = deep_supervision
    predict(model, _image(32, 32), patch_size=(32, 32))
    assert model.training is training
    assert model.deep_supervision is deep_supervision
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_images_are_refused(model: SegmentationModel) -> None:
    with pytest.raises(ValueError, match=r"image: got shape \(1, 8, 8\), expected \(2"):
        predict(model, np.zeros((1, 8, 8), np.float32), patch_size=(8, 8))


def test_devices() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(UserError, match=f"device '{name}' cannot be used: ") as caught:
            pick_device(name)
        assert "\n" not in str(caught.value)


def test_predictor_reads_what_a_run_left(tmp_path: Path) -> None:
    pixels, mask = discs(48, seed=0)
    case = Case("discs", normalize(pixels[None]), (mask > 0).astype(np.int64))
    config = TrainConfig(model_options=TINY_MODEL, patch_size=(32, 32), iterations=2, device="cpu")
    result = train(config, [case], [], tmp_path / "run")
    labels = Predictor.from_run(tmp_path / "run", device="cpu")(pixels[None])
    expected = predict(result.model, case.image, patch_size=(32, 32)).argmax(0)
    np.testing.assert_array_equal(labels, expected)


def test_predictor_refuses_what_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a training run: it holds no config\.json"):
        Predictor.from_run(tmp_path)
    (tmp_path / "config.json").write_text(TrainConfig().to_json())
    with pytest.raises(UserError, match=r"not a finished training run.*model\.safetensors"):
        Predictor.from_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"not a finished training run.*damaged"):
        Predictor.from_run(tmp_path)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (predict, (3, 8, 8)),
        (predict_labels, (8, 8)),
        (predict_labels, (3, 8, 8)),
        (predict_labels, (2, 0, 8)),
        (predict_stack, (0, 2, 8, 8)),
    ],
)
def test_arrays_of_other_shapes_are_refused(
    model: SegmentationModel, function: Callable[..., object], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got shape {shape}, expected (")):
        function(model, np.zeros(shape, np.float32), patch_size=(8, 8))
