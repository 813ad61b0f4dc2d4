"""Prediction on a GPU: the CPU's logits, and 16-bit results within rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swin_umamba import create_model
from swin_umamba.inference.predictor import predict

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("amp", "bound"), [("off", 1e-4), ("fp16", 1e-2), ("bf16", 5e-2)])
def test_a_gpu_predicts_what_the_cpu_does(
    amp: str, bound: float, mirror: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    sizes = {"dims": (8, 16), "depths": (1, 1), "d_state": 4}
    model = create_model("swin_umamba_d", in_channels=2, out_channels=3, **sizes).eval()
    image = np.random.default_rng(0).normal(size=(2, 70, 90)).astype(np.float32)
    options = {"patch_size": (32, 48), "overlap": 0.5, "mirror": mirror}
    expected = predict(model, image, **options)  # type: ignore[arg-type]
    actual = predict(model.cuda(), image, amp=amp, **options)  # type: ignore[arg-type]
    assert actual.dtype == np.float32
    assert np.linalg.norm(actual - expected) < bound * np.linalg.norm(expected)
