"""Processes killed at random times: what they leave is complete, and can be continued."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
from PIL import Image
from run_helpers import assert_same_weights, go, tiny_config

from swin_umamba.runs.checkpoints import Checkpoints

FORKING = multiprocessing.get_context("forkserver")
# Start processes without importing PyTorch again.
FORKING.set_forkserver_preload(["swin_umamba.train"])


def _train(run: Path) -> None:
    go(
        run,
        tiny_config(iterations=40, checkpoint_every=1, validate_every=5),
        resume=(run / "config.json").exists(),
    )


def killed_training(rng: random.Random, work: Path, kills: int) -> int:
    """Kill a training repeatedly, then let it finish: its weights equal those of an uninterrupted
    one.

    Returns how many kills hit a running training.
    """

    def start(run: Path) -> ForkServerProcess:
        process = FORKING.Process(target=_train, args=(run,))
        process.start()
        return process

    def ended_well(process: ForkServerProcess) -> bool:
        process.join()
        return process.exitcode == 0

    run, met = work / "run", 0
    assert ended_well(start(work / "whole"))
    while met < kills:
        process = start(run)
        _wait_for(process.is_alive, run / "log.jsonl", rng)
        met += process.is_alive()
        process.kill()
        process.join()
        checkpoints = Checkpoints(run)
        checkpoints.settle()
        state = checkpoints.load()
        if state is not None and state["iteration"] == 40:
            break
    assert ended_well(start(run))
    for name in ("model.safetensors", "best.safetensors"):
        assert_same_weights(work / "whole", run, name)
    assert not list(run.glob(".pending*")) + list(run.glob(".*partial*"))
    return met


def killed_prediction(rng: random.Random, data: Path, work: Path, kills: int) -> int:
    """Kill predictions: each mask in the folder is complete and correct, and the job can finish."""
    dataset, run = data / "set", data / "run"
    words = [sys.executable, "-m", "swin_umamba.cli", "predict", str(run), str(dataset / "images")]
    whole = work / "whole"
    subprocess.run([*words, str(whole), "--device", "cpu"], check=True, capture_output=True)
    expected = {path.name: np.array(Image.open(path)) for path in whole.glob("*.png")}
    out, met = work / "out", 0
    while met < kills:
        process = subprocess.Popen(
            [*words, str(out), "--device", "cpu"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(partial(_runs, process), out, rng)
        met += process.poll() is None
        process.kill()
        process.wait()
        found = list(out.glob("*.png"))
        for path in found:
            np.testing.assert_array_equal(np.array(Image.open(path)), expected[path.name])
        if len(found) == len(expected):
            shutil.rmtree(out)
    subprocess.run([*words, str(out), "--device", "cpu"], check=True, capture_output=True)
    for name, mask in expected.items():
        np.testing.assert_array_equal(np.array(Image.open(out / name)), mask)
    return met


def _runs(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def _wait_for(runs: Callable[[], bool], sign: Path, rng: random.Random) -> None:
    """Wait until a process has begun to work, and a random time longer."""
    before, deadline = _stamp(sign), time.monotonic() + 120
    while runs() and _stamp(sign) == before and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.3))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
