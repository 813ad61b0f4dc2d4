"""Large images by bands of rows: the labels of the whole, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swin_umamba import create_model
from swin_umamba.inference import predictor as predicting
from swin_umamba.inference.predictor import predict, predict_labels
from swin_umamba.models import SegmentationModel


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    torch.manual_seed(0)
    sizes = {"dims": (4, 8), "depths": (1, 1), "d_state": 1}
    return create_model("swin_umamba_d", in_channels=2, out_channels=3, **sizes)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("height", [9, 16, 40, 61, 64, 97])
def test_bands_give_the_whole_image(
    model: SegmentationModel, height: int, overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(height)
    image = rng.normal(size=(2, height, 37)).astype(np.float32)
    whole = predict(model, image, patch_size=(16, 24), overlap=overlap)
    parts: list[int] = []

    def seen(model: SegmentationModel, image: np.ndarray, **options: object) -> np.ndarray:
        parts.append(image.shape[1])
        return predict(model, image, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predicting, "predict", seen)
    most = 3 * 37 * 48
    options = {"patch_size": (16, 24), "overlap": overlap}
    labels = predict_labels(model, image, most_values=most, **options)
    # Only where two classes are as likely may rounding decide otherwise.
    ordered = np.sort(whole, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-5
    np.testing.assert_array_equal(labels[clear], whole.argmax(0)[clear])
    assert clear.mean() > 0.99
    if height > 48:
        assert len(parts) > 1
        assert max(parts) < height
