"""The models compared with the original: names, shapes, parameter counts, logits.

Models with an encoder of VMamba's second generation are compared with our float64 reference.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import MODELS_OF_SECOND, SECOND, model_cases
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_umamba import create_model, model_names

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASE_NAMES = {
    "swin_umamba": "SwinUMamba",
    "swin_umamba_d": "SwinUMambaD",
    "swin_umamba_v1": "SwinUMamba_v1",
}
CASES = [
    (name, path.name)
    for name, release_name in RELEASE_NAMES.items()
    for path in sorted(FIXTURES.glob(f"{release_name}_1x*.npz"))
]


OURS = [f"{name}_{SECOND}.npz" for name in MODELS_OF_SECOND]


def test_every_model_has_a_golden():
    assert {name for name, _ in CASES} == set(model_names())
    assert set(model_cases()) == set(model_names()) | {f"{n}+{SECOND}" for n in MODELS_OF_SECOND}


@pytest.mark.parametrize("name", RELEASE_NAMES)
def test_names_shapes_and_order_are_the_releases(name):
    with FakeTensorMode():
        model = create_model(name, in_channels=1, out_channels=14)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    release = json.loads((FIXTURES / f"{RELEASE_NAMES[name]}_state_dict.json").read_text())
    assert ours == release
    assert list(ours) == list(release)  # optimizers of the release count parameters in this order


@pytest.mark.parametrize(("name", "file"), CASES)
def test_logits_are_the_releases(name, file, golden, rule):
    expected, meta = golden(file)
    model = create_model(name, in_channels=meta["in_chans"], out_channels=meta["out_chans"])
    _compare(model, expected, meta, rule)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("file", OURS)
def test_logits_with_the_second_generation_are_our_references(
    file, device, golden, rule, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected, meta = golden(file)
    model = create_model(
        meta["model"],
        in_channels=meta["in_chans"],
        out_channels=meta["out_chans"],
        encoder=meta["encoder"],
    )
    _compare(model, expected, meta, rule, device)


def _compare(model, expected, meta, rule, device="cpu"):
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    weights = rule.state(shapes, meta["salt"])
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    model.load_state_dict(tensors, assign=True)
    x = torch.from_numpy(rule.image(tuple(meta["input"]), meta["seed"])).to(device)
    with torch.no_grad():
        outputs = model.to(device).eval()(x)
        model.deep_supervision = False
        single = model(x)
    assert len(outputs) == len(expected) == 4
    for i, out in enumerate(outputs):
        reference = expected[f"out{i}"]
        assert out.shape == reference.shape
        assert np.linalg.norm(out.cpu().numpy() - reference) <= 1e-4 * np.linalg.norm(reference)
    if device == "cpu":
        assert torch.equal(single, outputs[0])
    else:  # libraries of a GPU may sum in another order the next time
        torch.testing.assert_close(single, outputs[0], rtol=1e-4, atol=1e-4)
