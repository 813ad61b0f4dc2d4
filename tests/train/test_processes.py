"""Processes end with those that started them, and launchers' process counts are checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from data_helpers import write_nnunet
from ranks_helpers import HERE, launched, launcher, started
from run_helpers import go, tiny_config

from swin_umamba.common.locks import locked
from swin_umamba.loop import world
from swin_umamba.runs.run import Run


def _runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait(until: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_data_workers_and_the_lock_end_with_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, HERE / "loader_program.py", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    with locked(tmp_path, "training run", wait=1.0):
        pass
    # torch's own watchdog polls every 5 seconds.
    _wait(lambda: not any(map(_runs, workers)), 3.0)


@pytest.mark.slow
def test_a_killed_launcher_s_processes_stop_with_a_checkpoint(tmp_path: Path) -> None:
    alive, run = tmp_path / "alive", tmp_path / "run"
    alive.mkdir()
    launching = started(
        *launcher("torchrun", 2),
        device="cpu",
        arguments=[HERE / "endless_program.py", run, alive],
    )
    _wait(lambda: len(list(alive.iterdir())) == 2, 120)
    pids = [int(path.name) for path in alive.iterdir()]
    launching.kill()
    _wait(lambda: not any(map(_runs, pids)), 60)
    # Whichever noticed first asked the other.
    said = {(alive / str(pid)).read_text() for pid in pids}
    assert said in ({"15"}, {"15", "None"})
    assert len(Run.open(run).log()) >= 3
    more = tiny_config(iterations=len(Run.open(run).log()) + 1, validate_every=10**6, batch_size=2)
    assert not go(run, more, resume=True).stopped


@pytest.mark.slow
def test_sigterm_of_one_process_stops_all_without_an_error(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    alive.mkdir()
    launching = started(
        *launcher("torchrun", 2),
        device="cpu",
        arguments=[HERE / "endless_program.py", tmp_path / "run", alive],
        cold=True,  # interpreters that end by themselves
    )
    _wait(lambda: len(list(alive.iterdir())) == 2, 120)
    first, second = (int(path.name) for path in alive.iterdir())
    os.kill(second, signal.SIGTERM)
    output, _ = launching.communicate(timeout=60)
    assert launching.returncode == 0, output
    assert "Traceback" not in output
    told = {pid: (alive / str(pid)).read_text() for pid in (first, second)}
    assert told == {first: "None", second: str(int(signal.SIGTERM))}


@pytest.mark.slow
def test_preparing_may_take_longer_than_processes_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch aborts a job if a process waits 10 minutes: preparing must not cause that."""
    cases, each, patience = 6, 2.5, 8
    assert cases * each > 1.5 * patience
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    dataset = write_nnunet(tmp_path / "boxes", cases=cases, shape=(32, 40))
    small = 'model_options={"dims": [4, 8], "depths": [1, 1], "decoder_depths": [1]}'
    words = ("train", dataset, tmp_path / "run", "--device", "cpu", "--iterations", "2")
    began = time.monotonic()
    launched(
        launcher("torchrun", 2),
        device="cpu",
        arguments=[
            *(HERE / "slow_preparing_program.py", str(each), str(patience), *words),
            *("--set", small, "--patch-size", "32", "32"),
        ],
    )
    assert time.monotonic() - began > cases * each
    assert len(Run.open(tmp_path / "run").log()) == 2
    assert Run.open(tmp_path / "run").environment["processes"] == "2"


def test_absent_processes_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world._warn_of_absent.cache_clear()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match="WORLD_SIZE announces 2 processes, but 1 train together"):
        world.World("cpu")
    world.World("cpu")  # warnings are errors here
    world._warn_of_absent.cache_clear()


def test_ranks_are_known_before_processes_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert world.announced_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert world.announced_rank() == 3
