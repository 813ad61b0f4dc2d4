"""Pretraining on a GPU: CUDA graphs, precisions, and tiles kept in its memory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pretrain_helpers import TINY, coloured_tiles, go_pretrain, tiny_pretraining
from run_helpers import signalled_at

from swin_umamba.common import graph_choice

pytestmark = pytest.mark.gpu

PLAIN = {**TINY, "drop_path_rate": 0.0}


@pytest.mark.parametrize("task", ["classes", "pixels"])
@pytest.mark.parametrize("resident", [True, False])
def test_graphs_compute_what_single_kernels_do(tmp_path: Path, task: str, resident: bool) -> None:
    common = {"task": task, "device": "cuda", "amp": "off", "model_options": PLAIN}
    losses = []
    for graph in (True, False):
        config = tiny_pretraining(**common, cuda_graph=graph, resident=resident)
        result = go_pretrain(tmp_path / f"{graph}", config)
        losses.append([record["loss"] for record in result.records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_graphs_are_chosen_where_they_are_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So small a network is bound by its launches."""
    monkeypatch.setattr(graph_choice, "SETTLING", 1)
    monkeypatch.setattr(graph_choice, "COUNTED", 2)
    config = tiny_pretraining(device="cuda", iterations=8)
    plain = go_pretrain(tmp_path / "plain", config.changed({"cuda_graph": False}))
    records = go_pretrain(tmp_path / "run", config).records
    assert [i for i, record in enumerate(records) if "cuda_graph" in record] == [5]
    assert records[5]["cuda_graph"].startswith("on: ")
    for ours, theirs in zip(records, plain.records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.1, abs=0.1)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_learns(tmp_path: Path, amp: str) -> None:
    config = tiny_pretraining(
        device="cuda", amp=amp, iterations=40, validate_every=10, lr=1e-2, mixup=0.0, colour=0.0
    )
    result = go_pretrain(tmp_path / "run", config, tiles=coloured_tiles(48))
    assert result.records[-1]["accuracy"] > 0.5
    assert not any("skipped" in record for record in result.records[-20:])


def test_a_run_on_a_gpu_goes_on(tmp_path: Path) -> None:
    config = tiny_pretraining(device="cuda")
    whole = go_pretrain(tmp_path / "whole", config)
    stop = signalled_at(3, signal.SIGTERM)
    assert go_pretrain(tmp_path / "run", config, on_progress=stop).stopped
    resumed = go_pretrain(tmp_path / "run", config, resume=True)
    for ours, theirs in zip(resumed.records, whole.records, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
