"""Non-finite losses and gradients: skipped, reported, and undone if they persist."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import assert_same_weights, go, signalled_at, tiny_config, without_times
from torch import Tensor, nn

from swin_umamba.drawing.plots import save_curves
from swin_umamba.errors import UserError
from swin_umamba.loop.guard import culprit_of_gradient, culprit_of_loss
from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.models import SegmentationModel
from swin_umamba.train import TrainConfig, network, stepping

LAYER = "vssm_encoder.layers.0.blocks.0.self_attention"


def _spoil(monkeypatch: pytest.MonkeyPatch, what: str, calls: range) -> None:
    """Make the loss, a layer's output or the gradient of its weight NaN in some iterations."""
    count = 0

    class Loss(DeepSupervisionLoss):
        def forward(self, *args: Any) -> Tensor:
            nonlocal count
            count += 1
            loss: Tensor = super().forward(*args)
            return loss * torch.nan if what == "loss" and count in calls else loss

    def build(config: TrainConfig, *, pretrained: bool) -> SegmentationModel:
        model = network.build_model(config, pretrained=pretrained)
        layer = model.get_submodule(LAYER)

        def spoilt(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            # The loss counts forward passes; looking at the same batch again does not count.
            now = count + 1 if torch.is_grad_enabled() else count
            return output * torch.nan if model.training and now in calls else output

        if what == "output":
            layer.register_forward_hook(spoilt)
        if what == "gradient":
            layer.in_proj.weight.register_hook(lambda g: g / 0 if count in calls else g)
        return model

    monkeypatch.setattr(stepping, "DeepSupervisionLoss", Loss)
    monkeypatch.setattr(stepping, "build_model", build)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("loss", "the loss"),
        ("output", f"the output of {LAYER}"),
        ("gradient", f"the gradient of {LAYER}.in_proj.weight"),
    ],
)
def test_a_step_is_skipped_and_told_with_its_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    _spoil(monkeypatch, what, range(2, 4))
    result = go(tmp_path / "run", tiny_config())
    assert [r.get("skipped") for r in result.records] == [None, told, told, *[None] * 5]
    skipped = result.records[1]
    assert (skipped["loss"] is None) == (what != "gradient")
    assert skipped["gradient"] is None
    for name, parameter in result.model.named_parameters():
        assert parameter.isfinite().all(), name
    # Strict JSON, which has no NaN.
    log = (tmp_path / "run" / "log.jsonl").read_text()
    assert [json.loads(line) for line in log.splitlines()] == result.records
    save_curves(tmp_path / "curves.png", result.records)


def test_a_skipped_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(ema=0.9, checkpoint_every=1)
    go(tmp_path / "run", config, on_progress=signalled_at(3, 15))
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    optimizer = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["optimizer"]
    _spoil(monkeypatch, "loss", range(1, 2))
    config = tiny_config(ema=0.9, checkpoint_every=1, iterations=4, validate_every=9)
    result = go(tmp_path / "run", config, resume=True)
    assert result.records[3]["skipped"] == "the loss"
    assert_same_weights(tmp_path / "run", tmp_path / "before")
    again = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["optimizer"]
    for key, state in optimizer["state"].items():
        assert all(torch.equal(tensor, again["state"][key][name]) for name, tensor in state.items())


def test_many_in_a_row_bring_the_last_good_checkpoint_back_with_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = go(tmp_path / "full", tiny_config())
    _spoil(monkeypatch, "output", range(5, 7))
    config = tiny_config(max_skipped=2)  # with a checkpoint after iterations 3 and 4
    result = go(tmp_path / "run", config)
    assert [r["iteration"] for r in result.records] == list(range(1, 9))
    assert not any("skipped" in r for r in result.records)
    told = f"the output of {LAYER} was not finite at iteration 6, for the 2th time in a row"
    assert [r.get("returned") for r in result.records] == [None] * 4 + [told] + [None] * 3
    for ours, theirs in zip(result.records, full.records, strict=True):
        assert ours["lr"] == theirs["lr"] * (0.5 if ours["iteration"] > 4 else 1)
    assert without_times(result.records[:4]) == without_times(full.records[:4])
    # The rate stays halved when the run is stopped and resumed.
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["returns"] == 1


def test_a_run_without_hope_ends_with_its_last_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path / "good", tiny_config(), on_progress=signalled_at(4, 15))
    _spoil(monkeypatch, "gradient", range(5, 999))
    told = (
        rf"the gradient of {LAYER}\.in_proj\.weight was not finite at iteration 6, for the 2th"
        r" time in a row, after 2 returns to the last checkpoint: lower lr \(0\.001\)"
    )
    with pytest.raises(UserError, match=told):
        go(tmp_path / "run", tiny_config(max_skipped=2, max_returns=2))
    for name in ("model.safetensors", "best.safetensors"):
        assert_same_weights(tmp_path / "run", tmp_path / "good", name)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, 7))


def test_culprits_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    x = torch.ones(1, 2)
    assert culprit_of_loss(model, lambda: model(x)) == "the loss"
    with torch.no_grad():
        model[2].weight[0, 0] = torch.inf
    assert culprit_of_loss(model, lambda: model(x)) == "the output of 2"
    assert culprit_of_loss(model, lambda: model(x * torch.nan)) == "the output of 0"
    assert not any(module._forward_hooks for module in model.modules())

    model(x).sum().backward()
    assert "2" not in culprit_of_gradient(model)
    model[0].weight.grad = torch.full((2, 2), torch.nan)
    model[0].bias.grad = torch.full((2,), torch.inf)
    assert culprit_of_gradient(model) == "the gradient of 0.bias and of 1 parameters before it"
    model[0].weight.grad = model[0].bias.grad = None
    assert culprit_of_gradient(model) == "the norm of the gradient"


def test_looking_for_a_culprit_draws_no_random_numbers() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    culprit_of_loss(model, lambda: model(torch.ones(4, 2)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.gpu
def test_overflows_of_half_precision_are_not_counted(tmp_path: Path) -> None:
    config = tiny_config(device="cuda", amp="fp16", max_skipped=1, max_returns=0, iterations=30)
    result = go(tmp_path / "run", config)
    # The scale starts at 65536, which may overflow here; the run continues in any case.
    assert len(result.records) == 30
    assert "skipped" not in result.records[-1]
