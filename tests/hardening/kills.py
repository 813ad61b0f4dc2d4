"""Processes that are killed at random times: what they leave is whole, and can be gone on with."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from run_helpers import assert_same_weights

from swin_umamba.runs.checkpoints import Checkpoints

HELPERS = Path(__file__).parents[1] / "helpers"
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from run_helpers import go, tiny_config
run = Path(sys.argv[1])
go(run, tiny_config(iterations=40, checkpoint_every=1, validate_every=5),
   resume=(run / "config.json").exists())
"""


def killed_training(rng: random.Random, work: Path, kills: int) -> int:
    """Kill a training so often, then let it end: its weights are those of one left alone.

    Returns how many kills met a running training.
    """

    def start(run: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", TRAIN, run, HELPERS])

    run, met = work / "run", 0
    assert start(work / "whole").wait() == 0
    while met < kills:
        with start(run) as process:
            _wait_for(process, run / "log.jsonl", rng)
            met += process.poll() is None
            process.kill()
        checkpoints = Checkpoints(run)
        checkpoints.settle()
        state = checkpoints.load()
        if state is not None and state["iteration"] == 40:
            break
    assert start(run).wait() == 0
    for name in ("model.safetensors", "best.safetensors"):
        assert_same_weights(work / "whole", run, name)
    assert not list(run.glob(".pending*")) + list(run.glob(".*partial*"))
    return met


def killed_prediction(rng: random.Random, data: Path, work: Path, kills: int) -> int:
    """Kill predictions: each mask in the folder is whole and right, and the job can be ended."""
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
        _wait_for(process, out, rng)
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


def _wait_for(process: subprocess.Popen[bytes], sign: Path, rng: random.Random) -> None:
    """Until a process has begun to work, and a random moment longer."""
    before, deadline = _stamp(sign), time.monotonic() + 120
    while process.poll() is None and _stamp(sign) == before and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.3))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
