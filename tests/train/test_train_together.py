"""Two processes train like one: with each launcher, on CPUs and GPUs, on one node and on two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from made_once import made_once
from ranks_helpers import (
    assert_as_alone,
    assert_goes_on_alone,
    assert_same_losses,
    assert_went_back_as_alone,
    trained_by,
    trained_together,
)
from ranks_program import CONFIGS, Scaled, loss_and_gradient, plain_float32
from run_helpers import assert_same_weights

from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.runs.folder import read_log

pytestmark = pytest.mark.slow  # processes start, each with its PyTorch


@dataclass(frozen=True)
class Way:
    """How two processes are started."""

    by: str
    device: str = "cpu"
    nodes: int = 1

    def __str__(self) -> str:
        return f"{self.by}-{self.device}" + ("-two nodes" if self.nodes == 2 else "")


def _ways() -> list[Any]:
    cpu = [Way("torchrun"), Way("accelerate"), Way("fsdp")]
    cpu += [Way("torchrun", nodes=2), Way("accelerate", nodes=2)]
    two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
    gpu = [Way("torchrun", "cuda"), Way("fsdp", "cuda")]  # by NCCL
    return [*cpu, *(pytest.param(way, marks=[pytest.mark.gpu, two]) for way in gpu)]


@dataclass(frozen=True)
class Together:
    """What two processes left behind."""

    way: Way
    folder: Path


@pytest.fixture(scope="module", params=_ways(), ids=str)
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Together:
    way: Way = request.param
    if way.device == "cuda":
        plain_float32()

    def make(folder: Path) -> None:
        trained_together(folder, way.device, way.by, nodes=way.nodes)

    return Together(way, made_once(tmp_path_factory, f"together-{way}".replace(" ", "-"), make))


@pytest.mark.parametrize("name", CONFIGS)
def test_training_comes_to_the_same(together: Together, tmp_path: Path, name: str) -> None:
    assert_as_alone(together.folder, tmp_path, name, together.way.device)


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_on_cpus_leave_their_group(together: Together, rank: int) -> None:
    """Gloo's threads would outlive the interpreter, and sometimes abort the process."""
    if together.way.device != "cpu":
        pytest.skip("NCCL's threads end with the process")
    left = json.loads((together.folder / f"left{rank}.json").read_text())
    assert left == {"in a group": False}


@pytest.mark.parametrize("batch_dice", [True, False])
def test_loss_and_gradient_are_those_of_the_whole_batch(
    together: Together, batch_dice: bool
) -> None:
    """In float64, with another share of ignored pixels on each."""
    if together.way.by == "fsdp" or together.way.device != "cpu":
        pytest.skip("asked of DDP on a CPU")
    loss_of = DeepSupervisionLoss((0.7, 0.3), batch_dice)
    whole = loss_and_gradient(Scaled(), loss_of, slice(None))
    for rank in (0, 1):
        found = json.loads((together.folder / f"losses{rank}.json").read_text())[str(batch_dice)]
        for ours, theirs in zip(found, whole, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-12)


def test_all_stop_when_one_is_asked_to_and_go_on(together: Together) -> None:
    same = assert_same_weights if together.way.device == "cpu" else assert_same_losses
    same(together.folder / "stopped", together.folder / "dagger")


def test_a_run_of_two_goes_on_alone(together: Together) -> None:
    assert_goes_on_alone(together.folder, together.way.device)


def test_a_run_of_one_goes_on_with_two(together: Together) -> None:
    assert_same_losses(together.folder / "grown", together.folder / "dagger")


def test_steps_that_are_not_finite_are_undone(together: Together, tmp_path: Path) -> None:
    assert_went_back_as_alone(together.folder, tmp_path, together.way.device)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains(together: Together, amp: str) -> None:
    if together.way.device == "cpu":
        pytest.skip("asked of GPUs")
    records = read_log(together.folder / amp)
    assert len(records) == 6
    # Overflows of fp16's first scales are skipped.
    assert [record.get("skipped") for record in records][-2:] == [None, None]
    assert all(record["loss"] is not None for record in records)
    # The same weights and batch, rounded otherwise.
    assert records[0]["loss"] != read_log(together.folder / "dagger")[0]["loss"]


def _ways_of_four() -> list[Any]:
    four = pytest.mark.skipif(torch.cuda.device_count() < 4, reason="needs four GPUs")
    cpu, gpu = ([Way("torchrun", device), Way("fsdp", device)] for device in ("cpu", "cuda"))
    return [*cpu, *(pytest.param(way, marks=[pytest.mark.gpu, four]) for way in gpu)]


@pytest.mark.parametrize("way", _ways_of_four(), ids=str)
def test_four_come_to_the_same(way: Way, tmp_path: Path) -> None:
    if way.device == "cuda":
        plain_float32()
    folder = tmp_path / "four"
    folder.mkdir()
    assert_as_alone(trained_by(4, folder, way.device, way.by), tmp_path, "dagger", way.device)
