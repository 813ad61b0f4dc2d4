"""A job on two nodes, both of which are this host, that its scheduler ends."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from ranks_helpers import HERE, on_two_nodes, started
from ranks_program import cases
from run_helpers import TINY, tiny_config

from swin_umamba.runs.folder import read_log
from swin_umamba.train import train


@pytest.mark.slow
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
