"""Pretraining: both tasks learn, runs resume bitwise, non-finite steps are skipped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrain_helpers import NO_DECODER, coloured_tiles, go_pretrain, tiny_pretraining
from run_helpers import assert_same_weights, signalled_at, without_times
from safetensors.torch import load_file, safe_open

from swin_umamba.common.graph_choice import GraphChoice
from swin_umamba.errors import UserError
from swin_umamba.loop.world import World
from swin_umamba.pretrain import PretrainConfig, Tiles, pretrain, stepping
from swin_umamba.pretrain.stepping import Stepper
from swin_umamba.runs.folder import read_log


def test_classes_are_learned(tmp_path: Path) -> None:
    """Three of them, and twelve images held out."""
    config = tiny_pretraining(iterations=40, validate_every=10, lr=1e-2, mixup=0.0, colour=0.0)
    result = go_pretrain(tmp_path / "run", config, tiles=coloured_tiles(48))
    assert max(r["accuracy"] for r in result.records if "accuracy" in r) >= 0.75
    assert result.dsc == result.records[-1]["accuracy"] > 0.5
    assert result.records[-1]["loss"] < 0.8 * result.records[0]["loss"]


def test_masked_pixels_are_learned(tmp_path: Path) -> None:
    """Of images of one color, which what is left of them tells."""
    colours = np.random.default_rng(0).integers(0, 256, (48, 3, 1, 1), dtype=np.uint8)
    tiles = Tiles("plain", np.broadcast_to(colours, (48, 3, 16, 16)).copy(), None, (), "")
    config = tiny_pretraining(
        task="pixels",
        iterations=45,
        validate_every=15,
        lr=3e-2,
        warmup=0.0,
        ema=None,
        colour=0.0,
        mask_patch=4,
        mask_share=0.5,
    )
    result = go_pretrain(tmp_path / "run", config, tiles=tiles)
    losses = [r["held_out_loss"] for r in result.records if "held_out_loss" in r]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * result.records[0]["loss"]
    assert result.dsc is None
    assert not any("accuracy" in record for record in result.records)


@pytest.mark.parametrize("task", ["classes", "pixels"])
@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    tmp_path: Path, task: str, ema: float | None
) -> None:
    config = tiny_pretraining(task=task, ema=ema)
    whole = go_pretrain(tmp_path / "whole", config)
    stop = signalled_at(3, signal.SIGTERM)
    stopped = go_pretrain(tmp_path / "run", config, on_progress=stop)
    assert stopped.stopped
    assert stopped.signal == signal.SIGTERM
    # The encoder is there all the while.
    assert (tmp_path / "run" / "encoder.safetensors").is_file()
    resumed = go_pretrain(tmp_path / "run", config, resume=True)
    assert without_times(resumed.records) == without_times(whole.records)
    for name in ("model.safetensors", "encoder.safetensors"):
        assert_same_weights(tmp_path / "whole", tmp_path / "run", name)


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    config = tiny_pretraining()
    go_pretrain(tmp_path / "whole", config)

    def die(progress: object) -> None:
        if progress.iteration == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_pretrain(tmp_path / "run", config, on_progress=die)
    assert len(read_log(tmp_path / "run")) == 5
    go_pretrain(tmp_path / "run", config, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    with pytest.raises(UserError, match="batch_size is 8, not 4"):
        go_pretrain(tmp_path / "run", config.changed({"batch_size": 4}), resume=True)


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    tiles = coloured_tiles()
    config = tiny_pretraining(model_options={**NO_DECODER}, model="swin_umamba")
    with Stepper(config, tiles, World("cpu")) as stepper:
        stepper.step(0, 0.5, 1.0)
        before = {name: t.clone() for name, t in stepper.model.state_dict().items()}
        steps = [s["step"].clone() for s in stepper.optimizer.state.values()]
        head = stepper.model.head
        handle = head.register_forward_hook(lambda module, inputs, output: output * torch.nan)
        record = stepper.step(1, 0.5, 1.0)
        handle.remove()
        assert record["skipped"] == "the output of head"
        assert record["loss"] is None
        after = stepper.model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert steps == [s["step"] for s in stepper.optimizer.state.values()]
        assert "skipped" not in stepper.step(2, 0.5, 1.0)
        assert not all(torch.equal(before[name], t) for name, t in after.items())


@pytest.mark.parametrize("fails", [False, True])
def test_steps_by_a_graph_are_those_of_single_launches(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A stand-in for the graph, which draws numbers as it is captured, as warming up does."""

    class Standing:
        def __init__(self, model: Any, loss: Any, *batch: Any, **options: Any) -> None:
            torch.rand(3)
            if fails:
                raise RuntimeError("not permitted")
            self.model, self.loss = model, loss

        def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            self.model.zero_grad()
            loss = self.loss(self.model(images), targets)
            loss.backward()
            found: torch.Tensor = loss.detach()
            return found

    monkeypatch.setattr(stepping, "GraphedStep", Standing)
    losses, news = [], []
    for graphed in (False, True):
        with Stepper(tiny_pretraining(), coloured_tiles(), World("cpu")) as stepper:
            stepper._graphs = GraphChoice("auto", settling=0, counted=1)
            if not graphed:
                stepper._graphs = GraphChoice(False)
            records = [stepper.step(i, i / 4, 1.0) for i in range(4)]
        losses.append([record["loss"] for record in records])
        news.append([record.get("cuda_graph", "") for record in records])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert not any(news[0])
    ends = "could not be captured: not permitted" if fails else "ms without"
    assert news[1][1].endswith(ends)
    assert not any(news[1][2:])


def test_a_config_of_schema_1_loads() -> None:
    values = json.loads(tiny_pretraining().to_json())
    old = {name: value for name, value in values.items() if name != "schema"}
    assert PretrainConfig.from_values({**old, "cuda_graph": None}).cuda_graph == "auto"
    assert PretrainConfig.from_values({**old, "cuda_graph": True}).cuda_graph is True
    with pytest.raises(ValueError, match="cuda_graph: got None"):
        PretrainConfig.from_values({**values, "cuda_graph": None})


def test_norms_biases_and_states_are_not_decayed() -> None:
    with Stepper(tiny_pretraining(weight_decay=0.1), coloured_tiles(), World("cpu")) as stepper:
        decays = {
            parameter: group["weight_decay"]
            for group in stepper.optimizer.param_groups
            for parameter in group["params"]
        }
        named = dict(stepper.model.named_parameters())
        assert decays.keys() == set(named.values())
        for name, parameter in named.items():
            plain = parameter.ndim < 2 or name.endswith(("A_logs", "Ds", "dt_projs_bias"))
            assert decays[parameter] == (0 if plain else 0.1), name


@pytest.mark.parametrize("model", ["swin_umamba", "swin_umamba_d"])
def test_the_encoder_file_holds_all_before_the_decoder(tmp_path: Path, model: str) -> None:
    options = NO_DECODER if model == "swin_umamba" else tiny_pretraining().model_options
    config = tiny_pretraining(model=model, model_options=options)
    result = go_pretrain(tmp_path / "run", config)
    found = load_file(tmp_path / "run" / "encoder.safetensors")
    prefixes = {name.split(".")[0] for name in found}
    assert prefixes == ({"stem"} if model == "swin_umamba" else set()) | {"vssm_encoder"}
    expected = result.model.front.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], t) for name, t in expected.items())
    with safe_open(tmp_path / "run" / "encoder.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["pretraining"])
    assert facts["images"] == "colours"
    assert facts["accuracy"] == result.records[-1]["accuracy"]
    assert (facts["iterations"], facts["classes"], facts["count"]) == (6, 3, 24)


@pytest.mark.parametrize("size", [(8, 24), (20, 12)])
@pytest.mark.parametrize("task", ["classes", "pixels"])
def test_images_may_be_of_any_size(tmp_path: Path, size: tuple[int, int], task: str) -> None:
    config = tiny_pretraining(task=task, image_size=size, mask_patch=None, iterations=2)
    result = go_pretrain(tmp_path / "run", config.changed({"mask_patch": None}))
    assert result.records[-1]["loss"] > 0


def test_nothing_held_out_is_no_score(tmp_path: Path) -> None:
    result = go_pretrain(tmp_path / "run", tiny_pretraining(held_out=0.0, iterations=2))
    assert result.dsc is None
    assert "accuracy" not in result.records[-1]


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    grey = Tiles("gray", np.zeros((4, 1, 8, 8), np.uint8), None, (), "")
    for config, tiles, words in (
        (
            tiny_pretraining(in_channels=1),
            coloured_tiles(),
            "in_channels: got 1, the images have 3",
        ),
        (tiny_pretraining(), grey, "gray has no classes to learn"),
        (tiny_pretraining(cuda_graph=True), coloured_tiles(), "cuda_graph: got true"),
        (tiny_pretraining(task="pixels", held_out=0.99), grey, "no images to train on"),
        (
            tiny_pretraining(model_options={"dims": [4], "depths": [1]}),
            coloured_tiles(),
            "cannot build the model",
        ),
    ):
        with pytest.raises(UserError, match=words):
            pretrain(config, tiles, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_patch": 12}, "mask_patch: got 12, expected at most half of image_size, 8"),
        ({"batch_size": 3}, "batch_size: got 3, expected an even number with mixup"),
        ({"crop": (0.9, 0.5)}, "crop: got .* the smaller one first"),
        ({"model": "dynunet"}, "model: got 'dynunet', expected one of our models"),
        ({"image_size": (4, 64)}, "image_size"),
        ({"task": "words"}, "task: got 'words', expected one of classes, pixels"),
        ({"model_options": {"width": 3}}, "model_options: got width"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny_pretraining(**changes)


def test_squares_to_mask_go_by_the_image() -> None:
    sides = {n: PretrainConfig(image_size=(n, n)).mask_side for n in (32, 64, 96, 192, 224)}
    assert sides == {32: 4, 64: 8, 96: 16, 192: 32, 224: 32}
