"""The configuration, the loop and the run folder."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model_cases import build, model_cases
from torch import nn
from train_helpers import TINY_MODEL, discs

from swin_umamba import create_model
from swin_umamba.common.devices import amp_on
from swin_umamba.data import Case, normalize
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Predictor
from swin_umamba.loop.schedule import learning_rate
from swin_umamba.losses import DeepSupervisionLoss, scale_weights
from swin_umamba.metrics import dice
from swin_umamba.train import Progress, TrainConfig, TrainResult, train, validation
from swin_umamba.train import stepping as stepping_module
from swin_umamba.weights import load_weights, read_config


def _case(seed: int, side: int = 48) -> Case:
    image, mask = discs(side, seed)
    return Case(f"discs {seed}", normalize(image[None]), (mask > 0).astype(np.int64))


def _config(**changes: Any) -> TrainConfig:
    few: dict[str, Any] = {
        "model_options": TINY_MODEL,
        "patch_size": (32, 32),
        "iterations": 6,
        "validate_every": 2,
        "lr": 3e-3,
        "device": "cpu",
    }
    return TrainConfig(**{**few, **changes})


def _train(folder: Path, **changes: Any) -> TrainResult:
    return train(_config(**changes), [_case(0), _case(1)], [_case(2)], folder)


def test_config_survives_its_json() -> None:
    config = _config(minutes=2.5, betas=(0.8, 0.99), amp="off")
    again = TrainConfig.from_json(config.to_json())
    assert dataclasses.replace(again, model_options={}) == dataclasses.replace(
        config, model_options={}
    )
    assert json.loads(again.to_json()) == json.loads(config.to_json())
    assert TrainConfig.from_json("{}") == TrainConfig()


def test_defaults_are_the_release_s() -> None:
    config = TrainConfig()
    assert (config.lr, config.min_lr, config.weight_decay) == (1e-4, 1e-6, 0.05)
    assert (config.eps, config.betas, config.clip_norm) == (1e-5, (0.9, 0.999), 12.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("in_channels", 0),
        ("num_classes", 1),
        ("patch_size", (0, 32)),
        ("patch_size", (32,)),
        ("batch_size", 0),
        ("foreground", 1.5),
        ("iterations", 0),
        ("minutes", 0.0),
        ("lr", 0.0),
        ("min_lr", 1.0),
        ("warmup", 1.0),
        ("weight_decay", -1.0),
        ("eps", 0.0),
        ("betas", (0.9, 1.0)),
        ("clip_norm", 0.0),
        ("validate_every", 0),
        ("overlap", 1.0),
        ("amp", "fp8"),
    ],
)
def test_bad_config_values_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}: got"):
        TrainConfig(**{field: value})


def test_bad_config_json_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown fields learning_rate"):
        TrainConfig.from_json('{"learning_rate": 1}')
    with pytest.raises(ValueError, match="JSON object"):
        TrainConfig.from_json("[]")
    with pytest.raises(ValueError, match="Expecting"):
        TrainConfig.from_json("{")
    for values in ('{"lr": "high"}', '{"patch_size": 3}'):
        with pytest.raises(ValueError, match="wrong type"):
            TrainConfig.from_json(values)


def test_learning_rate_rises_and_follows_a_cosine_to_its_floor() -> None:
    config = TrainConfig(lr=1e-3, min_lr=1e-6, warmup=0.1)
    assert learning_rate(config, 0.0) == 0.0
    assert learning_rate(config, 0.05) == pytest.approx(5e-4)
    assert learning_rate(config, 0.1) == pytest.approx(1e-3)
    assert learning_rate(config, 0.55) == pytest.approx((1e-3 + 1e-6) / 2)
    assert learning_rate(config, 1.0) == pytest.approx(1e-6)
    assert learning_rate(TrainConfig(), 0.0) == TrainConfig().lr


@pytest.mark.slow
@pytest.mark.parametrize("name", model_cases())
def test_overfits_one_batch(name: str) -> None:
    torch.manual_seed(0)
    options = {**TINY_MODEL}
    if not name.startswith("swin_umamba_d"):
        del options["decoder_depths"]
    model = build(name, in_channels=1, out_channels=2, **options)
    case = _case(3, side=32)
    images = torch.from_numpy(case.image)[None]
    masks = torch.from_numpy(case.mask)[None]
    loss_of = DeepSupervisionLoss(scale_weights(len(model.scales)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        outputs = model(images)
        optimizer.zero_grad()
        loss_of(outputs, masks).backward()
        optimizer.step()
    assert dice(outputs[0][0].argmax(0), masks[0], 2)[0] > 0.97
    # The head of weight zero, too, or DDP would wait for it.
    (heads,) = model.stages()["heads"]
    assert all(parameter.grad is not None for parameter in heads.parameters())


def test_run_folder_holds_config_log_and_weights(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "run"
    result = _train(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "best.safetensors",
        "config.json",
        "log.jsonl",
        "model.safetensors",
        "state.pt",
    ]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    text = (folder / "config.json").read_text()
    assert json.loads(text) == json.loads(_config().to_json())
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert lines == result.records
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["iteration"] for line in lines if "dsc" in line] == [2, 4, 6]
    assert lines[-1]["dsc"] == result.dsc
    assert all(math.isfinite(line["loss"]) for line in lines)

    model = create_model(**read_config(folder / "model.safetensors"))
    load_weights(model, folder / "model.safetensors")
    image = torch.from_numpy(_case(2).image)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(image)[0], result.model(image)[0])


def test_training_learns(tmp_path: Path) -> None:
    result = _train(tmp_path / "run", iterations=120, validate_every=120, warmup=0.1)
    assert result.dsc is not None
    assert result.dsc > 0.85


def test_same_seed_same_weights(tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        return _train(tmp_path / name, iterations=3, seed=seed).model.state_dict()

    first, second, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.slow
def test_minutes_end_the_run_with_the_schedule_at_its_end(tmp_path: Path) -> None:
    result = _train(tmp_path / "run", iterations=10**6, validate_every=10**6, minutes=0.05)
    rates = [record["lr"] for record in result.records]
    assert 2.0 < result.seconds < 10.0
    assert 1 < len(rates) < 10**6
    assert rates[0] == pytest.approx(3e-3, rel=0.05)
    assert rates[-1] < 0.2 * rates[0]
    assert rates == sorted(rates, reverse=True)
    assert "dsc" in result.records[-1]


def test_progress_is_told_after_every_iteration(tmp_path: Path) -> None:
    told: list[Progress] = []
    train(_config(), [_case(0)], [_case(1)], tmp_path / "run", on_progress=told.append)
    assert [progress.iteration for progress in told] == [1, 2, 3, 4, 5, 6]
    assert [progress.done for progress in told] == pytest.approx([i / 6 for i in range(1, 7)])
    assert told[0].dsc is None
    assert told[-1].dsc is not None
    assert told[0].seconds_left > 0
    assert told[-1].seconds_left == 0


def test_nothing_to_validate_on_gives_no_dsc(tmp_path: Path) -> None:
    case = _case(1)
    empty = Case("empty", case.image, np.zeros_like(case.mask))
    assert train(_config(iterations=2), [case], [], tmp_path / "a").dsc is None
    # Two classes that neither mask nor prediction holds have no DSC; a false one scores 0.
    result = train(_config(iterations=2), [case], [empty], tmp_path / "b")
    assert result.dsc in (None, 0.0)
    assert json.loads((tmp_path / "b" / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 2


def test_cases_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    case = _case(0)
    colour = Case("color", np.repeat(case.image, 3, axis=0), case.mask)
    with pytest.raises(UserError, match="color has 3 channels, expected 1"):
        train(_config(), [case, colour], [], tmp_path / "run")
    many = Case("many", case.image, case.mask * 4)
    with pytest.raises(UserError, match="many holds the labels 0 to 4, expected 0 to 1"):
        train(_config(), [case], [many], tmp_path / "run")
    with pytest.raises(UserError, match="device 'nonsense'"):
        train(_config(device="nonsense"), [case], [], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_taken_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="already holds files"):
        _train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match=r"mine\.txt is a file"):
        _train(tmp_path / "mine.txt")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot make the folder"):
        _train(tmp_path / "run")


def test_loss_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(DeepSupervisionLoss):
        def forward(self, *args: Any) -> torch.Tensor:
            return super().forward(*args) * torch.nan

    monkeypatch.setattr(stepping_module, "DeepSupervisionLoss", Broken)
    told = "the loss was not finite at iteration 3, for the 3th time in a row, after 1 returns"
    with pytest.raises(UserError, match=told):
        _train(tmp_path / "run", max_skipped=3, max_returns=1)


@pytest.mark.parametrize("name", model_cases())
def test_trains_under_ddp(name: str, tmp_path: Path) -> None:
    """DDP fails in the second step if any trainable parameter was left without a gradient."""
    options = {**TINY_MODEL}
    if not name.startswith("swin_umamba_d"):
        del options["decoder_depths"]
    torch.distributed.init_process_group(
        "gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1
    )
    try:
        model = build(name, in_channels=1, out_channels=2, **options)
        parallel = nn.parallel.DistributedDataParallel(model)
        loss_of = DeepSupervisionLoss(scale_weights(len(model.scales)))
        case = _case(3, side=32)
        images, masks = torch.from_numpy(case.image)[None], torch.from_numpy(case.mask)[None]
        for _ in range(3):
            loss_of(parallel(images), masks).backward()
        # Before its group: a group destroyed together with it would wait, holding the interpreter's
        # lock, for its own thread, which waits for the lock.
        del parallel
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_precision_is_the_config_s_on_a_gpu_and_full_on_a_cpu(amp: str) -> None:
    assert amp_on(torch.device("cuda"), amp) == amp
    assert amp_on(torch.device("cpu"), amp) == "off"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_emulated_bfloat16_is_not_taken_by_itself(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch says that a V100 or T4 supports it, and converts to float32 and back."""
    if torch.version.hip:
        pytest.skip("AMD's GPUs have no such capability")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(
        torch.cuda, "_check_bf16_tensor_supported", lambda device: True, raising=False
    )
    assert amp_on(torch.device("cuda"), "auto") == expected


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["auto", "bf16", "fp16", "off"])
def test_trains_and_validates_on_a_gpu(
    tmp_path: Path, amp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = []

    def predictor(*given: Any, **options: Any) -> Any:
        validated.append(options["amp"])
        return Predictor(*given, **options)

    monkeypatch.setattr(validation, "Predictor", predictor)
    result = _train(
        tmp_path / "run", device="cuda", amp=amp, iterations=120, validate_every=120, warmup=0.1
    )
    assert result.dsc is not None
    assert result.dsc > 0.85
    assert all(p.dtype == torch.float32 for p in result.model.parameters())
    assert set(validated) == {amp_on(torch.device("cuda"), amp)}


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_trains_on_the_second_gpu(tmp_path: Path, cuda_graph: bool) -> None:
    result = _train(
        tmp_path / "run", device="cuda:1", iterations=4, validate_every=4, cuda_graph=cuda_graph
    )
    assert {p.device for p in result.model.parameters()} == {torch.device("cuda:1")}
    assert all(record["loss"] is not None for record in result.records)
