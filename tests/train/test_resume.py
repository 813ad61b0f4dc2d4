"""Runs that end early, and resume: on request, killed, on full disks, damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import (
    assert_same_weights,
    disc_case,
    go,
    signalled_at,
    tiny_config,
    without_times,
)

from swin_umamba import create_model
from swin_umamba.errors import UserError
from swin_umamba.loop.world import World
from swin_umamba.runs.checkpoints import Checkpoints
from swin_umamba.train import Progress, train
from swin_umamba.train.stepping import Stepper
from swin_umamba.weights import save_weights


@pytest.mark.parametrize("changes", [{}, {"workers": 1, "ema": 0.9, "accumulate": 2}])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_weights_and_log(
    tmp_path: Path, changes: dict[str, Any], kind: signal.Signals
) -> None:
    config = tiny_config(iterations=6, **changes)
    whole = go(tmp_path / "whole", config)
    part = go(tmp_path / "part", config, on_progress=signalled_at(3, kind))
    assert part.stopped
    assert len(part.records) == 3
    rest = go(tmp_path / "part", config, resume=True)
    assert not rest.stopped
    assert_same_weights(tmp_path / "whole", tmp_path / "part")
    assert_same_weights(tmp_path / "whole", tmp_path / "part", "best.safetensors")
    assert without_times(rest.records) == without_times(whole.records)
    lines = (tmp_path / "part" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rest.records
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_ends_a_run_at_once(tmp_path: Path) -> None:
    def on_progress(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", tiny_config(), on_progress=on_progress)
    # What a launcher passes on of the same Ctrl-C is no second one.
    both = [signal.SIGINT, signal.SIGTERM]
    result = go(
        tmp_path / "other",
        tiny_config(),
        on_progress=lambda progress: [os.kill(os.getpid(), kind) for kind in both],
    )
    assert result.stopped


def test_a_signal_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = go(tmp_path / "run", tiny_config(), on_progress=signalled_at(1, signal.SIGINT))
    assert not result.stopped
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_workers_that_the_signal_ended_first_are_done_without(tmp_path: Path) -> None:
    def records(workers: int, asked: bool) -> list[dict[str, Any]]:
        config = tiny_config(workers=workers, accumulate=2)
        cases = [disc_case(0), disc_case(1)]
        with Stepper(config, cases, World("cpu"), lambda: asked, pretrained=False) as stepper:
            first = stepper.step(0, 0.0, 1.0)
            for child in multiprocessing.active_children():
                child.terminate()
                child.join()
            return [first, *(stepper.step(i, 0.0, 1.0) for i in (1, 2))]

    assert without_times(records(1, asked=True)) == without_times(records(0, asked=True))
    with pytest.raises(UserError, match="a process that prepares batches failed"):
        records(1, asked=False)


def test_a_lost_tail_of_the_log_is_made_again(tmp_path: Path) -> None:
    """As left by a kill: lines beyond the checkpoint, the last one truncated."""
    whole = go(tmp_path / "whole", tiny_config())
    go(tmp_path / "part", tiny_config(), on_progress=signalled_at(3, signal.SIGTERM))
    log = tmp_path / "part" / "log.jsonl"
    log.write_text(log.read_text() + '{"iteration": 4, "loss": 9}\n{"itera')
    records = go(tmp_path / "part", tiny_config(), resume=True).records
    assert without_times(records) == without_times(whole.records)
    assert_same_weights(tmp_path / "whole", tmp_path / "part")


def test_a_run_is_made_longer(tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_config(iterations=4))
    again = go(tmp_path / "run", tiny_config(iterations=4), resume=True)
    assert len(again.records) == 4
    longer = go(tmp_path / "run", tiny_config(iterations=6, patience=9), resume=True)
    assert len(longer.records) == 6
    assert json.loads((tmp_path / "run" / "config.json").read_text())["iterations"] == 6


def _until_its_end(run: Path) -> None:
    config = tiny_config(iterations=40, checkpoint_every=1, validate_every=5)
    go(run, config, resume=(run / "config.json").exists())


@pytest.mark.slow
def test_killed_at_random_times_a_run_still_ends_as_one_that_was_not(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")

    def start(run: Path) -> Any:
        process = forked.Process(target=_until_its_end, args=(run,))
        process.start()
        return process

    def lines(run: Path) -> int:
        log = run / "log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0

    rng, run = random.Random(7), tmp_path / "run"
    whole = start(tmp_path / "whole")
    for _ in range(3):
        process = start(run)
        wanted, deadline = lines(run) + rng.randint(0, 12), time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if (run / ".lock").exists() and lines(run) >= wanted:
                time.sleep(rng.uniform(0, 0.02))
                break
            time.sleep(0.002)
        process.kill()
        process.join()
        Checkpoints(run).settle()
        Checkpoints(run).load()
    for process in (start(run), whole):
        process.join(120)
        assert process.exitcode == 0
    assert_same_weights(tmp_path / "whole", run)
    assert_same_weights(tmp_path / "whole", run, "best.safetensors")
    iterations = [json.loads(x)["iteration"] for x in (run / "log.jsonl").read_text().splitlines()]
    assert iterations == list(range(1, 41))
    assert not list(run.glob(".pending*")) + list(run.glob(".*partial*"))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("moves", range(6))
def test_weights_and_state_belong_together_wherever_a_process_dies(
    tmp_path: Path, moves: int, after: bool
) -> None:
    """At every file rename, before and after it."""
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        options = tiny_config().model_options
        models.append(create_model("swin_umamba_d", in_channels=1, out_channels=2, **options))
    names = ("model.safetensors", "best.safetensors")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"iteration": 1}, dict.fromkeys(names, models[0]))
    child = os.fork()
    if child == 0:
        _die_at_a_renaming(moves, after)
        checkpoints.save({"iteration": 2}, dict.fromkeys(names, models[1]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    # Two weights files, the state, and moving the two files into place: five renames.
    assert os.waitstatus_to_exitcode(status) == (0 if moves == 5 else 9)
    again = Checkpoints(tmp_path)
    again.settle()
    state = again.load()
    assert state is not None
    assert state["iteration"] == (2 if moves > 2 or (moves == 2 and after) else 1)
    for name in names:
        found = create_model("swin_umamba_d", in_channels=1, out_channels=2, **options)
        again.load_weights(name, found)
        expected = models[state["iteration"] - 1].state_dict()
        assert all(torch.equal(t, expected[key]) for key, t in found.state_dict().items())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted((*names, "state.pt"))


def _die_at_a_renaming(number: int, after: bool) -> None:
    """For this process, which must not return to pytest."""
    rename, count = Path.replace, 0

    def counted(self: Path, target: Any) -> Any:
        nonlocal count
        count += 1
        if count - 1 == number and not after:
            os._exit(9)
        moved = rename(self, target)
        if count - 1 == number:
            os._exit(9)
        return moved

    Path.replace = counted  # type: ignore[method-assign]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def on_progress(progress: Progress) -> None:
        before = (tmp_path / "run" / "log.jsonl").read_text()
        with pytest.raises(UserError, match="in use by another training run"):
            go(tmp_path / "run", tiny_config(iterations=1), resume=True)
        with pytest.raises(UserError, match="already holds files of a run"):
            go(tmp_path / "run", tiny_config(iterations=1))
        assert (tmp_path / "run" / "log.jsonl").read_text() == before

    go(tmp_path / "run", tiny_config(iterations=1), on_progress=on_progress)
    go(tmp_path / "run", tiny_config(iterations=1), resume=True)


def test_a_start_that_was_cut_short_is_no_run(tmp_path: Path) -> None:
    for name in (".lock", "plan.json", ".7.partial.config.json"):
        (tmp_path / name).touch()
    assert len(go(tmp_path, tiny_config(iterations=2)).records) == 2


def test_a_run_that_died_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", tiny_config())
    part = tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_text(tiny_config().to_json())
    (part / "log.jsonl").touch()
    assert without_times(go(part, tiny_config(), resume=True).records) == without_times(
        whole.records
    )


def _other_model(run: Path) -> None:
    model = create_model("swin_umamba_d", in_channels=2, out_channels=2, dims=(4, 8), depths=(1, 1))
    save_weights(model, run / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "state.pt").write_bytes(b"PK no checkpoint"), r"state\.pt is damaged"),
        (
            lambda f: (f / "state.pt").write_bytes((f / "state.pt").read_bytes()[:-900]),
            r"state\.pt is damaged",
        ),
        (lambda f: torch.save({"iteration": 1}, f / "state.pt"), r"state\.pt is not a checkpoint"),
        (
            lambda f: torch.save({"iteration": 1, "files": {}}, f / "state.pt"),
            "does not fit: 'optimizer'",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            r"model\.safetensors is damaged or was replaced",
        ),
        (_other_model, r"model\.safetensors is damaged or was replaced"),
        (lambda f: (f / "best.safetensors").unlink(), r"best\.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), r"cannot resume: .* holds no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (
            lambda f: (f / "config.json").write_text(tiny_config(iterations=3, lr=0.5).to_json()),
            r"config\.json lr is 0\.5, not 0\.001",
        ),
        (lambda f: (f / "log.jsonl").write_text("nonsense\n"), r"log\.jsonl is damaged in line 1"),
    ],
)
def test_damaged_runs_are_refused_and_left_alone(tmp_path: Path, damage: Any, message: str) -> None:
    run = tmp_path / "run"
    go(run, tiny_config(iterations=3))
    damage(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UserError, match=message):
        go(run, tiny_config(iterations=3), resume=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    config = tiny_config(iterations=3)
    go(tmp_path / "run", config)
    model = create_model("swin_umamba_d", in_channels=2, out_channels=2, dims=(4, 8), depths=(1, 1))
    Checkpoints(tmp_path / "run").save({"iteration": 3}, {"model.safetensors": model})
    with pytest.raises(UserError, match=r"model\.safetensors does not fit SwinUMambaD"):
        go(tmp_path / "run", config, resume=True)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Make writes beyond this many bytes fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "name"),
    [(8_000, "model.safetensors"), (40_000, "state.pt"), (1_500, "log.jsonl")],
)
def test_full_disks_are_told_and_leave_the_last_checkpoint(
    tmp_path: Path, size: int, name: str
) -> None:
    run = tmp_path / "run"
    changes = {"checkpoint_every": 99, "validate_every": 99} if name == "log.jsonl" else {}
    config = tiny_config(iterations=30, **changes)
    go(run, config, on_progress=signalled_at(3, signal.SIGTERM))
    sizes = {path.name: path.stat().st_size for path in run.iterdir()}
    assert sizes["model.safetensors"] > 8_000
    assert sizes["state.pt"] > 40_000 > sizes["model.safetensors"]
    before = {p: p.read_bytes() for p in run.iterdir() if p.name not in ("log.jsonl", ".lock")}
    with _largest_file(size), pytest.raises(UserError, match=rf"cannot write .*{name}"):
        go(run, config, resume=True)
    assert {
        p: p.read_bytes() for p in run.iterdir() if p.name not in ("log.jsonl", ".lock")
    } == before
    assert len(go(run, config, resume=True).records) == 30
    assert_same_weights(_straight(tmp_path, config), run)


def _straight(tmp_path: Path, config: Any) -> Path:
    go(tmp_path / "straight", config)
    return tmp_path / "straight"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_run_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go(run, tiny_config(iterations=3))
    (run / ".lock").chmod(0o400)
    run.chmod(0o500)
    with pytest.raises(UserError, match="cannot write to"):
        go(run, tiny_config(iterations=6), resume=True)


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    result = go(tmp_path / "run", tiny_config(validate_every=2, iterations=12, lr=1e-2))
    scored = {r["iteration"]: r["dsc"] for r in result.records if "dsc" in r}
    assert result.best_dsc == max(scored.values())
    best = min(i for i, dsc in scored.items() if dsc == result.best_dsc)
    go(tmp_path / "until", tiny_config(validate_every=2, iterations=12, lr=1e-2),
       on_progress=signalled_at(best, signal.SIGTERM))  # fmt: skip
    shutil.copy(tmp_path / "run" / "best.safetensors", tmp_path / "run" / "model.safetensors")
    assert_same_weights(tmp_path / "run", tmp_path / "until")


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    config = tiny_config(iterations=50, validate_every=1, patience=2, lr=1e-6, min_lr=0.0)
    result = go(tmp_path / "run", config)
    assert len(result.records) < 50
    assert not result.stopped
    assert len(go(tmp_path / "run", config, resume=True).records) == len(result.records)


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cases to train on"):
        train(tiny_config(), [], [disc_case(0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()
