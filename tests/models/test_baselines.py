"""The comparison networks behave like our models."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from swin_umamba import create_model
from swin_umamba.cli import app
from swin_umamba.losses import DeepSupervisionLoss, scale_weights
from swin_umamba.models import SegmentationModel, baseline_names
from swin_umamba.models.baselines import pooling
from swin_umamba.models.summary import summarize
from swin_umamba.weights import load_weights, read_config, save_weights

SMALL: dict[str, dict[str, Any]] = {
    "dynunet": {"patch_size": (32, 48), "widths": (4, 16)},
    "resenc_m": {"patch_size": (32, 48), "widths": (4, 16)},
    "segresnet": {"init_filters": 8},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1)},
    "unetr": {"patch_size": (32, 48), "feature_size": 4, "hidden_size": 12, "mlp_dim": 8},
}
RESENC = pytest.mark.skipif(
    find_spec("dynamic_network_architectures") is None,
    reason="needs: pip install --no-deps dynamic-network-architectures",
)
each = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[RESENC] if n == "resenc_m" else []) for n in baseline_names()],
)


def _small(name: str, seed: int = 0, **options: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    return create_model(name, in_channels=2, out_channels=3, **SMALL[name], **options)


@each
def test_own_weights_come_back(name: str, tmp_path: Path) -> None:
    model = _small(name, 1)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    for again in (
        create_model(**read_config(path), pretrained=path),
        SegmentationModel.from_pretrained(tmp_path),
    ):
        for n, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[n], tensor)


def test_all_are_here() -> None:
    assert baseline_names() == sorted(SMALL)


@each
@pytest.mark.parametrize("size", [(32, 48), (23, 41)])
def test_logits_have_their_scales(name: str, size: tuple[int, int]) -> None:
    model = _small(name)
    found = model(torch.randn(2, 2, *size))
    assert isinstance(found, list)
    assert len(found) == len(model.scales)
    for out, scale in zip(found, model.scales, strict=True):
        assert out.shape == (2, 3, *(-(-n // scale) for n in size))
    model.eval()
    model.deep_supervision = False
    assert model(torch.randn(2, 2, *size)).shape == (2, 3, *size)


@each
def test_every_weight_that_counts_gets_a_gradient(name: str) -> None:
    model = _small(name)
    weights = scale_weights(len(model.scales))
    DeepSupervisionLoss(weights)(
        model(torch.randn(2, 2, 32, 48)), torch.randint(0, 3, (2, 32, 48))
    ).backward()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in model.named_parameters() if p.grad is not None}
    assert all("cross_attn" in n for n, _ in model.named_parameters() if n not in trained)
    model.freeze_encoder()
    assert trained == {n for n, p in model.named_parameters() if p.requires_grad}


@each
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = _small(name)
    save_weights(model, path)
    again = create_model(**read_config(path))
    load_weights(again, path)
    x = torch.randn(1, 2, 32, 48)
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(x), again.eval()(x), strict=True):
            assert torch.equal(ours, theirs)


@each
def test_summary_counts_every_parameter(name: str) -> None:
    found = summarize(name, in_channels=2, out_channels=3, size=(32, 48), **SMALL[name])
    assert found.params == sum(p.numel() for p in _small(name).parameters())
    assert found.work.macs > 0


def test_depth_follows_the_patch() -> None:
    """nnU-Net's own plans: 7 halvings of 512, and each axis for itself."""
    assert pooling((512, 512)) == [(1, 1)] + 7 * [(2, 2)]
    assert pooling((320, 320)) == [(1, 1)] + 6 * [(2, 2)]
    assert pooling((384, 640)) == [(1, 1)] + 6 * [(2, 2)] + [(1, 2)]
    for size in ((8, 8), (0, 64), (64,)):
        with pytest.raises(ValueError, match="patch_size"):
            pooling(size)


def test_anisotropic_logits_keep_their_axes() -> None:
    model = create_model(
        "dynunet", in_channels=1, out_channels=2, patch_size=(16, 64), widths=(2, 4)
    )
    shapes = [tuple(out.shape[2:]) for out in model(torch.randn(1, 1, 15, 50))]
    assert shapes == [(15, 50), (8, 25), (4, 13), (4, 7)]


def test_unetr_refuses_what_it_was_not_built_for() -> None:
    with pytest.raises(ValueError, match=r"expected at most \(32, 48\) pixels"):
        _small("unetr")(torch.randn(1, 2, 33, 48))


def test_command_shows_them() -> None:
    result = CliRunner().invoke(app, ["summary", "dynunet", "--size", "64", "64"])
    assert result.exit_code == 0, result.output
    assert "decoder" in result.output
