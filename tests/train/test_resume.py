"""Runs that end before their time: asked to, killed, or by losses that are not finite."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_helpers import discs

from swin_umamba.data import Case, normalize
from swin_umamba.errors import UserError
from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.train import Progress, TrainConfig, train
from swin_umamba.train import loop as loop_module
from swin_umamba.weights import load_weights

TINY: dict[str, Any] = {
    "dims": (4, 8), "depths": (1, 1), "decoder_depths": (1,), "d_state": 1, "drop_path_rate": 0.3,
}  # fmt: skip


def _config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model_options": TINY, "patch_size": (16, 16), "iterations": 8, "validate_every": 4,
        "checkpoint_every": 3, "device": "cpu", "lr": 1e-3,
    }  # fmt: skip
    return TrainConfig(**settings | changes)


def _case(seed: int) -> Case:
    image, mask = discs(24, seed)
    return Case(f"discs {seed}", normalize(image[None]), (mask > 0).astype(np.int64))


def _go(folder: Path, config: TrainConfig, **options: Any) -> Any:
    cases = [_case(i) for i in range(3)]
    return train(config, cases[:2], cases[2:], folder, **options)


def _interrupt_at(iteration: int) -> Any:
    def on_progress(progress: Progress) -> None:
        if progress.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "state.pt", weights_only=True)
    return dict(state["model"])


def _same(a: Path, b: Path) -> None:
    first, second = _weights(a), _weights(b)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = _go(tmp_path / "whole", _config())
    part = _go(tmp_path / "part", _config(), on_progress=_interrupt_at(5))
    assert part.stopped
    assert len(part.records) == 5
    rest = _go(tmp_path / "part", _config(), resume=True)
    assert not rest.stopped
    _same(tmp_path / "whole", tmp_path / "part")
    assert [r["loss"] for r in rest.records] == [r["loss"] for r in whole.records]


def test_a_lost_tail_of_the_log_is_made_again(tmp_path: Path) -> None:
    """As a kill leaves it: lines beyond the checkpoint, the last one torn."""
    _go(tmp_path / "whole", _config())
    _go(tmp_path / "part", _config(), on_progress=_interrupt_at(3))
    log = tmp_path / "part" / "log.jsonl"
    log.write_text(log.read_text() + '{"iteration": 4, "loss": 9}\n{"itera')
    records = _go(tmp_path / "part", _config(), resume=True).records
    assert [record["iteration"] for record in records] == list(range(1, 9))
    _same(tmp_path / "whole", tmp_path / "part")


def test_killed_at_random_times_a_run_still_ends_as_one_that_was_not(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(_config(iterations=60).to_json())
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from test_resume import _go; from swin_umamba.train import TrainConfig\n"
        "run = Path(sys.argv[2])\n"
        "_go(run, TrainConfig.from_json(Path(sys.argv[1]).read_text()),"
        " resume=(run / 'config.json').exists())"
    )

    def start(run: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, config, run, Path(__file__).parent])

    rng, run = random.Random(0), tmp_path / "run"
    log = run / "log.jsonl"
    for _ in range(2):
        with start(run) as process:
            wanted = rng.randint(4, 25) + (len(log.read_text().splitlines()) if log.exists() else 0)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if log.exists() and len(log.read_text().splitlines()) >= wanted:
                    break
                time.sleep(0.005)
            process.kill()
    # Both ends in processes of their own too: threads decide the order of sums.
    for folder in (run, tmp_path / "whole"):
        with start(folder) as process:
            assert process.wait() == 0
    _same(tmp_path / "whole", run)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def on_progress(progress: Progress) -> None:
        with pytest.raises(UserError, match="in use by another"):
            _go(tmp_path / "run", _config(iterations=1), resume=True)

    _go(tmp_path / "run", _config(iterations=1), on_progress=on_progress)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "state.pt").write_bytes(b"PK no checkpoint"), "state.pt is damaged"),
        (
            lambda f: (f / "state.pt").write_bytes((f / "state.pt").read_bytes()[:-900]),
            "state.pt is damaged",
        ),
        (lambda f: torch.save({"iteration": 1}, f / "state.pt"), "does not fit this run"),
        (lambda f: (f / "config.json").unlink(), "cannot resume: .*config.json"),
        (
            lambda f: (f / "config.json").write_text(_config(iterations=3, lr=0.5).to_json()),
            "config.json differs in lr",
        ),
    ],
)
def test_damaged_runs_are_refused_and_left_alone(tmp_path: Path, damage: Any, message: str) -> None:
    run = tmp_path / "run"
    _go(run, _config(iterations=3))
    damage(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match=message):
        _go(run, _config(iterations=3), resume=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


class _Broken(DeepSupervisionLoss):
    """NaN for some calls of it."""

    bad: range
    calls = 0

    def forward(self, *args: Any) -> torch.Tensor:
        type(self).calls += 1
        loss = super().forward(*args)
        return loss * torch.nan if self.calls in self.bad else loss


def _break(monkeypatch: pytest.MonkeyPatch, bad: range) -> None:
    monkeypatch.setattr(_Broken, "bad", bad, raising=False)
    monkeypatch.setattr(_Broken, "calls", 0)
    monkeypatch.setattr(loop_module, "DeepSupervisionLoss", _Broken)


def test_a_step_without_a_finite_loss_is_skipped_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, range(2, 3))
    result = _go(tmp_path / "run", _config())
    assert [r.get("skipped") for r in result.records] == [None, "the loss", *[None] * 6]
    assert result.records[1]["loss"] is None
    for name, parameter in result.model.named_parameters():
        assert parameter.isfinite().all(), name


def test_many_such_steps_bring_the_last_checkpoint_back_with_half_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(monkeypatch, range(4, 6))
    result = _go(tmp_path / "run", _config(max_skipped=2))
    assert [r["iteration"] for r in result.records] == list(range(1, 9))
    assert not any("skipped" in r for r in result.records)
    full = _go(tmp_path / "other", _config())
    assert result.records[4]["lr"] == pytest.approx(full.records[4]["lr"] / 2)


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    result = _go(tmp_path / "run", _config(validate_every=2))
    assert result.best_dsc == max(r["dsc"] for r in result.records if "dsc" in r)
    load_weights(result.model, tmp_path / "run" / "best.safetensors")


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    result = _go(tmp_path / "run", _config(iterations=50, validate_every=1, patience=2, lr=1e-6))
    assert len(result.records) < 50
