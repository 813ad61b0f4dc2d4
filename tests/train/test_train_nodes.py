"""Two nodes, which are this host twice, do what one process does."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from ranks_helpers import (
    HERE,
    assert_as_alone,
    assert_goes_on_alone,
    assert_same_losses,
    on_two_nodes,
    started,
    trained_together,
)
from ranks_program import cases
from run_helpers import TINY, assert_same_weights, tiny_config

from swin_umamba.train import train
from swin_umamba.train.run_folder import read_log


@pytest.fixture(scope="module", params=["torchrun", "accelerate"])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a process on each node trained."""
    return trained_together(tmp_path_factory.mktemp("nodes"), "cpu", request.param, nodes=2)


def test_training_comes_to_the_same(together: Path, tmp_path: Path) -> None:
    assert_as_alone(together, tmp_path, "dagger", "cpu")


def test_both_stop_when_one_is_asked_to_and_go_on(together: Path) -> None:
    assert_same_weights(together / "dagger", together / "stopped")


def test_a_run_of_one_node_goes_on_with_two_and_back(together: Path) -> None:
    assert_same_losses(together / "grown", together / "dagger")
    assert_goes_on_alone(together, "cpu")


def test_a_scheduler_that_ends_the_job_leaves_a_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = [HERE / "nodes_program.py", run]
    nodes = [started(*n, device="cpu", arguments=program) for n in on_two_nodes("torchrun")]
    try:
        until = time.monotonic() + 120
        while not (run / "log.jsonl").exists() or len(read_log(run)) < 3:
            assert time.monotonic() < until, nodes[0].communicate(timeout=1)[0][-3000:]
            assert all(node.poll() is None for node in nodes)
            time.sleep(0.1)
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        texts = [node.communicate(timeout=60)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    done = len(read_log(run))
    assert not any("AssertionError" in text for text in texts), texts
    made = cases()
    config = tiny_config(
        model_options={**TINY, "drop_path_rate": 0.0}, batch_size=4, iterations=done + 1
    )
    result = train(config, made[:2], made[2:], run, resume=True)
    assert [record["iteration"] for record in result.records] == list(range(1, done + 2))
