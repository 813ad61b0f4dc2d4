"""Further training options: averaging, accumulation, freezing, recomputation."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from run_helpers import assert_same_weights, disc_case, go, signalled_at, tiny_config
from safetensors.torch import load_file

from swin_umamba import create_model
from swin_umamba.common import graph_choice
from swin_umamba.data import Augmentation
from swin_umamba.errors import UserError
from swin_umamba.loop import board as board_module
from swin_umamba.loop.ema import MovingAverage
from swin_umamba.loop.world import World
from swin_umamba.train import TrainConfig, stepping
from swin_umamba.train.batches import workers_of
from swin_umamba.train.stepping import Stepper
from swin_umamba.weights import save_weights


def _model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    options = tiny_config().model_options
    return create_model("swin_umamba_d", in_channels=1, out_channels=2, **options)


def test_moving_average_follows_slowly() -> None:
    model, target = _model(), _model(1)
    average = MovingAverage(model, 0.5)
    start = [p.clone() for p in average.model.parameters()]
    factors = (1 - 1 / 10, 1 - 2 / 11, 1 - 3 / 12)  # lower decays than 0.5 at first
    for factor in factors:
        average.update(target)
        for value, p, goal in zip(
            start, average.model.parameters(), target.parameters(), strict=True
        ):
            value.lerp_(goal.detach(), factor)
            torch.testing.assert_close(p, value)
    late = MovingAverage(model, 0.5)
    late.updates = 1000
    late.update(target)
    for p, a, b in zip(
        late.model.parameters(), model.parameters(), target.parameters(), strict=True
    ):
        torch.testing.assert_close(p, (a + b) / 2)
    assert not late.model.training
    assert not any(p.requires_grad for p in late.model.parameters())


def test_counts_of_batches_are_copied_into_the_average() -> None:
    """Batch norm counts in int64, which has no average."""

    def counted(seed: int) -> Any:
        model = _model(seed)
        model.norm = torch.nn.BatchNorm2d(2)
        return model

    model, target = counted(0), counted(1)
    target.norm(torch.randn(2, 2, 3, 3))
    target.norm(torch.randn(2, 2, 3, 3))
    average = MovingAverage(model, 0.5)
    average.updates = 1000
    average.update(target)
    assert average.model.norm.num_batches_tracked == 2
    torch.testing.assert_close(average.model.norm.running_mean, target.norm.running_mean / 2)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    result = go(tmp_path / "run", tiny_config(ema=0.9))
    kept = load_file(tmp_path / "run" / "model.safetensors")
    raw = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    assert not all(torch.equal(kept[name], raw[name]) for name in raw)
    assert all(torch.equal(t, kept[name]) for name, t in result.model.state_dict().items())


def test_accumulated_batches_are_as_one_large_batch() -> None:
    """Their cross-entropies are, and per-image Dice: each batch is a mean over as many pixels."""
    config = tiny_config(batch_dice=False, augment=False, foreground=0.0)

    def gradients(accumulate: int) -> list[torch.Tensor]:
        cases, world = [disc_case(0, side=16)], World("cpu")
        few = config.changed({"accumulate": accumulate, "model_options.drop_path_rate": 0.0})
        with Stepper(few, cases, world, lambda: False, pretrained=False) as stepper:
            stepper.step(0, 0.0, 1.0)
            return [p.grad for p in stepper.model.parameters() if p.grad is not None]

    # One image of the patch's size: every batch is the same.
    for one, three in zip(gradients(1), gradients(3), strict=True):
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-6)


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    go(tmp_path / "plain", tiny_config())
    go(tmp_path / "again", tiny_config(checkpoint_activations=True))
    assert_same_weights(tmp_path / "plain", tmp_path / "again")


def test_pretrained_encoder_is_frozen_at_first(tmp_path: Path) -> None:
    save_weights(_model(5), tmp_path / "weights.safetensors")
    config = tiny_config(
        pretrained=str(tmp_path / "weights.safetensors"), freeze_iterations=4, weight_decay=0.1
    )
    before = load_file(tmp_path / "weights.safetensors")

    def moved(folder: Path) -> set[str]:
        after = load_file(folder / "model.safetensors")
        return {name for name in before if not torch.equal(before[name], after[name])}

    result = go(tmp_path / "run", config, on_progress=signalled_at(4, 15))
    assert result.pretrained is not None
    assert result.pretrained.counts() == {"loaded": len(before)}
    account = json.loads((tmp_path / "run" / "pretrained.json").read_text())
    assert {tensor["target"] for tensor in account["tensors"]} == before.keys()
    encoder = {name for name in before if name.startswith("vssm_encoder.")}
    embedding = {name for name in encoder if name.startswith("vssm_encoder.patch_embed.")}
    first = moved(tmp_path / "run")
    assert first & encoder == embedding
    assert len(first - encoder) > 10
    # The weights are in the checkpoint by now: what they came from is not read again.
    (tmp_path / "weights.safetensors").rename(tmp_path / "gone")
    go(tmp_path / "run", config, resume=True)
    assert moved(tmp_path / "run") & encoder > embedding
    (tmp_path / "gone").rename(tmp_path / "weights.safetensors")
    go(tmp_path / "straight", config)
    assert_same_weights(tmp_path / "straight", tmp_path / "run")


def test_a_run_goes_on_from_another_one_with_other_classes(tmp_path: Path) -> None:
    go(tmp_path / "first", tiny_config())
    config = tiny_config(num_classes=3, continue_from=str(tmp_path / "first"))
    result = go(tmp_path / "second", config, on_progress=signalled_at(1, 15))
    assert result.pretrained is not None
    assert result.pretrained.path == str(tmp_path / "first" / "best.safetensors")
    assert {entry.note for entry in result.pretrained.of("skipped")} == {"2 outputs there, 3 here"}
    account = json.loads((tmp_path / "second" / "pretrained.json").read_text())
    assert account["counts"] == result.pretrained.counts()
    # The weights are in the checkpoint by now: the other run is not read again.
    (tmp_path / "first").rename(tmp_path / "gone")
    assert not go(tmp_path / "second", config, resume=True).stopped
    with pytest.raises(UserError, match="first is not a training run"):
        go(tmp_path / "third", config)
    assert not (tmp_path / "third").exists()
    with pytest.raises(ValueError, match="continue_from: got 'a', expected None beside pretrained"):
        tiny_config(continue_from="a", pretrained="b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": "none.safetensors"}, "no weights file at none.safetensors"),
        ({"model_options": {"dims": (4,), "depths": (1,)}}, "cannot build the model: dims"),
    ],
)
def test_models_that_cannot_be_built_are_told(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        go(tmp_path / "run", tiny_config(**changes))
    assert not (tmp_path / "run").exists()


def test_config_takes_single_entries() -> None:
    config = TrainConfig().changed(
        {"augmentation.p_noise": 0.5, "augmentation.blur": [1, 2], "model_options.d_state": 4}
    )
    assert config.model_options == {"d_state": 4}
    numbers = config.augmentation_numbers()
    assert numbers == Augmentation(p_noise=0.5, blur=(1, 2))
    assert config.changed({"augment": False}).augmentation_numbers() is False
    assert TrainConfig.from_json(config.to_json()) == config
    for values, message in (
        ({"augmentation.p_nose": 1}, "augmentation: got p_nose"),
        ({"lr.x": 1}, r"unknown field lr\.x"),
        ({"rate": 1}, "unknown fields rate"),
        ({"model": "unet"}, "model: got 'unet', expected one of swin_umamba"),
        ({"model_options": {"width": 3}}, "model_options: got width, expected some of backend"),
        ({"lr": "high"}, "wrong type"),
        ({"ema": 1.0}, "ema: got 1.0, expected None or between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            config.changed(values)


def test_a_model_takes_the_options_of_the_one_that_it_extends() -> None:
    config = TrainConfig(model="swin_umamba_v1", model_options={"dims": (4, 8), "stem_dim": 4})
    assert config.model_options["stem_dim"] == 4
    with pytest.raises(ValueError, match=r"got width, expected some of backend, .* for"):
        TrainConfig(model="swin_umamba_v1", model_options={"width": 4})


def test_workers_by_default() -> None:
    world = World("cpu")
    assert workers_of(TrainConfig(), world) == 0
    assert workers_of(TrainConfig(workers=3), world) == 3
    world.device = torch.device("cuda")
    assert 1 <= workers_of(TrainConfig(), world) <= 8


def test_tensorboard_is_written_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: Path, purge_step: int) -> None:
            assert folder == tmp_path / "run" / "tensorboard"
            assert purge_step == 1

        def add_scalar(self, name: str, value: float, iteration: int) -> None:
            written.append((name, value, iteration))

        def close(self) -> None:
            written.append(("closed", 0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(board_module.importlib.util, "find_spec", lambda name: object())
    result = go(tmp_path / "run", tiny_config())
    assert ("loss", result.records[2]["loss"], 3) in written
    assert ("dsc", result.records[3]["dsc"], 4) in written
    assert written[-1][0] == "closed"
    assert {name for name, _, _ in written} >= {"lr", "gradient", "waited", "step"}
    written.clear()
    go(tmp_path / "without", tiny_config(tensorboard=False))
    assert not written


def test_graphs_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cuda_graph: true, expected auto or false but on a single"):
        go(tmp_path / "run", tiny_config(cuda_graph=True))
    with pytest.raises(ValueError, match="cuda_graph: got True, expected auto or false with comp"):
        tiny_config(cuda_graph=True, compile=True)


def test_several_gpus_train_without_graphs_and_the_log_says_so() -> None:
    def never() -> None:
        raise AssertionError("no graph was to be captured")

    world: Any = SimpleNamespace(size=2)
    reason = stepping._graphs_impossible(tiny_config(), world)
    choice = graph_choice.GraphChoice[None]("auto", reason)
    for _ in range(graph_choice.SETTLING + graph_choice.COUNTED + 1):
        assert choice.graph(never) is None
        choice.count(1.0)
    assert choice.news() == "off: several processes exchange gradients"
    world.size = 1
    assert stepping._graphs_impossible(tiny_config(), world) is None


def test_a_cpu_trains_without_graphs(tmp_path: Path) -> None:
    records = go(tmp_path / "run", tiny_config(cuda_graph="auto")).records
    assert not any("cuda_graph" in record for record in records)


def _with_frozen_start(folder: Path, **settings: Any) -> TrainConfig:
    save_weights(_model(5), folder / "weights.safetensors")
    return tiny_config(
        pretrained=str(folder / "weights.safetensors"),
        freeze_iterations=3,
        device="cuda",
        workers=0,
        **settings,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("amp", ["off", "fp16", "bf16"])
def test_graphs_train_as_single_launches_do(tmp_path: Path, amp: str, accumulate: int) -> None:
    """With an encoder that is frozen at first, drop path, and a return to the run later."""
    config = _with_frozen_start(tmp_path, amp=amp, accumulate=accumulate)
    plain = go(tmp_path / "plain", config.changed({"cuda_graph": False}))
    graphed = config.changed({"cuda_graph": True})
    assert go(tmp_path / "graphed", graphed, on_progress=signalled_at(5, 15)).stopped
    result = go(tmp_path / "graphed", graphed, resume=True)
    tolerance = {"off": 1e-3, "fp16": 0.03, "bf16": 0.1}[amp]
    for ours, theirs in zip(result.records, plain.records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance, abs=tolerance)


@pytest.mark.gpu
def test_graphs_are_chosen_where_they_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So tiny a model is bound by its launches."""
    monkeypatch.setattr(graph_choice, "SETTLING", 1)
    monkeypatch.setattr(graph_choice, "COUNTED", 2)
    config = _with_frozen_start(tmp_path, ema=0.9)
    plain = go(tmp_path / "plain", config.changed({"cuda_graph": False}))
    records = go(tmp_path / "run", config).records
    assert [i for i, record in enumerate(records) if "cuda_graph" in record] == [5]
    assert records[5]["cuda_graph"].startswith("on: ")
    for ours, theirs in zip(records, plain.records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1, abs=0.1)


@pytest.mark.gpu
def test_training_goes_on_where_a_step_cannot_be_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that synchronizes with the device, as users may write."""

    class Waiting(stepping.DeepSupervisionLoss):
        def forward(self, *arguments: Any) -> torch.Tensor:
            loss: torch.Tensor = super().forward(*arguments)
            return loss * float(loss.detach() > -1)

    monkeypatch.setattr(stepping, "DeepSupervisionLoss", Waiting)
    monkeypatch.setattr(graph_choice, "SETTLING", 1)
    monkeypatch.setattr(graph_choice, "COUNTED", 1)
    config = tiny_config(device="cuda", workers=0)
    records = go(tmp_path / "run", config).records
    assert all(record["loss"] is not None for record in records)
    said = [record["cuda_graph"] for record in records if "cuda_graph" in record]
    assert len(said) == 1
    assert said[0].startswith("off: a step could not be captured: ")
    with pytest.raises(RuntimeError):
        go(tmp_path / "asked", config.changed({"cuda_graph": True}))


@pytest.mark.slow
def test_compiled_models_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, but not compiled to machine code, which would take minutes.

    A compiled model may order its sums differently: its gradients may have twice the error of the
    plain model's relative to float64.
    """
    traced: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(stepping, "compiled", partial(torch.compile, backend=backend))

    def gradients(dtype: torch.dtype, compile: bool) -> torch.Tensor:
        config = tiny_config(compile=compile, amp="off")
        with Stepper(
            config, [disc_case(0)], World("cpu"), lambda: False, pretrained=False
        ) as stepper:
            stepper.model.to(dtype)
            images, masks = stepper.batches.sampler.batch(0)
            monkeypatch.setattr(stepper.batches, "_batch", lambda index: (images.to(dtype), masks))
            stepper.step(0, 0.0, 1.0)
            found = [p.grad for p in stepper.model.parameters() if p.grad is not None]
        return torch.cat([g.flatten().double() for g in found])

    exact = gradients(torch.float64, compile=False)
    plain = gradients(torch.float32, compile=False)
    assert not traced
    compiled = gradients(torch.float32, compile=True)
    assert traced
    assert (compiled - exact).norm() <= 2 * (plain - exact).norm() + 1e-6 * exact.norm()
