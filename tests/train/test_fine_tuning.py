"""Learning rates and weight decays by part of the model: encoder layers and decoder."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import assert_same_weights, disc_case, go, signalled_at, tiny_config
from torch import nn

from swin_umamba import create_model
from swin_umamba.loop.groups import encoder_depths, is_decayed, parameter_groups
from swin_umamba.loop.world import World
from swin_umamba.models import SegmentationModel, model_names
from swin_umamba.train import TrainConfig
from swin_umamba.train.network import build_optimizer
from swin_umamba.train.stepping import Stepper

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"dims": (4, 8, 12), "depths": (2, 1, 2), "d_state": 1}


def _model(name: str = "swin_umamba_d") -> SegmentationModel:
    return create_model(name, in_channels=1, out_channels=2, **SIZES)


def _of_each(model: nn.Module, groups: list[dict[str, Any]], key: str) -> dict[str, Any]:
    values = {id(p): group[key] for group in groups for p in group["params"]}
    names = {name: values[id(p)] for name, p in model.named_parameters()}
    assert len(values) == len(names)  # each is in one group
    return names


@pytest.mark.parametrize("name", model_names())
def test_by_default_there_is_one_group_as_there_always_was(name: str) -> None:
    model = _model(name)
    (group,) = build_optimizer(model, TrainConfig(), CPU).param_groups
    assert all(a is b for a, b in zip(group["params"], model.parameters(), strict=True))
    assert "lr_scale" not in group
    plain = torch.optim.AdamW(model.parameters(), lr=1e-4).state_dict()
    own = build_optimizer(model, TrainConfig(), CPU).state_dict()
    assert own["param_groups"][0].keys() == plain["param_groups"][0].keys()


@pytest.mark.parametrize("name", model_names())
def test_layers_are_counted_from_the_image_on(name: str) -> None:
    model = _model(name)
    depths = encoder_depths(model.named_parameters())
    before_decoder = {n for n, _ in model.named_parameters() if n.startswith(("vssm_", "stem."))}
    assert depths.keys() == before_decoder
    # Two blocks, one, and two: downsampling layers count with the block that follows.
    expected = {(0, 0): 1, (0, 1): 2, (1, 0): 3, (2, 0): 4, (2, 1): 5}
    for parameter, depth in depths.items():
        block = re.search(r"layers\.(\d)\.blocks\.(\d)", parameter)
        smaller = re.search(r"downsamples\.(\d)", parameter)
        if block is not None:
            assert depth == expected[int(block[1]), int(block[2])]
        elif smaller is not None:
            assert depth == expected[int(smaller[1]) + 1, 0]
        else:
            assert depth == 0
            assert parameter.startswith(("stem.", "vssm_encoder.patch_embed."))


def test_names_of_the_second_generation_are_known() -> None:
    names = (
        *("patch_embed.0.weight", "layers.0.blocks.0.op.in_proj.weight"),
        *("layers.0.downsample.1.weight", "layers.1.blocks.0.mlp.fc1.weight"),
        *("layers.1.blocks.1.norm2.weight", "norm.weight"),
    )
    weight = nn.Parameter(torch.zeros(2, 2))
    found = encoder_depths([(f"vssm_encoder.{name}", weight) for name in names])
    assert list(found.values()) == [0, 1, 2, 2, 3, 3]


def test_rates_fall_from_the_decoder_to_the_image() -> None:
    model = _model("swin_umamba")
    config = TrainConfig(lr=1e-3, encoder_lr=5e-4, layer_decay=0.8)
    groups = build_optimizer(model, config, CPU).param_groups
    scales = _of_each(model, groups, "lr_scale")
    depths = encoder_depths(model.named_parameters())
    for name, scale in scales.items():
        if name in depths:
            assert scale == pytest.approx(0.5 * 0.8 ** (6 - depths[name])), name
        else:
            assert scale == 1.0, name
    assert len(groups) == 7  # stem and patches, five blocks, and the rest


def test_norms_biases_and_states_may_go_without_decay() -> None:
    model = _model()
    groups = parameter_groups(model.named_parameters(), weight_decay=0.1, decay_all=False)
    decays = _of_each(model, groups, "weight_decay")
    for name, parameter in model.named_parameters():
        assert decays[name] == (0.1 if is_decayed(name, parameter) else 0.0)
    left_out = {name for name, decay in decays.items() if decay == 0}
    blocks = "vssm_encoder.layers.0.blocks.0"
    assert {
        f"{blocks}.ln_1.weight",
        f"{blocks}.self_attention.A_logs",
        f"{blocks}.self_attention.Ds",
        f"{blocks}.self_attention.dt_projs_bias",
        f"{blocks}.self_attention.conv2d.bias",
    } <= left_out
    assert f"{blocks}.self_attention.in_proj.weight" not in left_out
    assert f"{blocks}.self_attention.x_proj_weight" not in left_out


def test_a_step_moves_each_part_by_its_own_rate() -> None:
    """AdamW's first step has the size of the rate, whatever the gradient."""
    config = tiny_config(lr=1e-2, encoder_lr=1e-4, layer_decay=0.5, weight_decay=0.0, eps=1e-12)
    with Stepper(config, [disc_case(0)], World("cpu"), lambda: False, pretrained=False) as stepper:
        before = {name: p.detach().clone() for name, p in stepper.model.named_parameters()}
        record = stepper.step(0, 0.0, 1.0)
        assert record["lr"] == 1e-2
        depths = encoder_depths(stepper.model.named_parameters())
        for name, parameter in stepper.model.named_parameters():
            if parameter.grad is None:
                continue
            moved = (parameter.detach() - before[name]).abs()[parameter.grad.abs() > 1e-7]
            rate = 1e-4 * 0.5 ** (3 - depths[name]) if name in depths else 1e-2
            if moved.numel():
                assert moved.max().item() == pytest.approx(rate, rel=0.05, abs=2e-7), name


def test_runs_with_several_rates_go_on_as_if_they_had_not_stopped(tmp_path: Path) -> None:
    config = tiny_config(encoder_lr=2e-4, layer_decay=0.7, decay_all=False, warmup=0.3)
    whole = go(tmp_path / "whole", config)
    assert go(tmp_path / "run", config, on_progress=signalled_at(4, signal.SIGTERM)).stopped
    resumed = go(tmp_path / "run", config, resume=True)
    assert [r["loss"] for r in resumed.records] == [r["loss"] for r in whole.records]
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("field", [{"encoder_lr": 1e-5}, {"layer_decay": 0.9}])
def test_other_networks_have_no_layers_to_tell_apart(field: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(field))}: got .* for dynunet"):
        TrainConfig(model="dynunet", **field)
    with pytest.raises(ValueError, match=r"layer_decay: got 1\.5"):
        TrainConfig(layer_decay=1.5)
