"""Two processes on two GPUs, by NCCL, in DDP and FSDP, do what one on one GPU does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks_helpers import (
    assert_as_alone,
    assert_goes_on_alone,
    assert_same_losses,
    assert_went_back_as_alone,
    trained_together,
)
from ranks_program import CONFIGS, plain_float32

from swin_umamba.train.run_folder import read_log

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch finds fewer than two GPUs"),
]


@pytest.fixture(scope="module", autouse=True)
def float32() -> None:
    plain_float32()


@pytest.fixture(scope="module", params=["torchrun", "fsdp"])
def together(
    float32: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder in which two processes trained."""
    return trained_together(tmp_path_factory.mktemp(request.param), "cuda", request.param)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_comes_to_the_same(together: Path, tmp_path: Path, name: str) -> None:
    assert_as_alone(together, tmp_path, name, "cuda")


def test_all_stop_when_one_is_asked_to_and_go_on(together: Path) -> None:
    assert_same_losses(together / "stopped", together / "dagger")


def test_a_run_of_two_goes_on_alone(together: Path) -> None:
    assert_goes_on_alone(together, "cuda")


def test_a_run_of_one_goes_on_with_two(together: Path) -> None:
    assert_same_losses(together / "grown", together / "dagger")


def test_steps_that_are_not_finite_are_undone(together: Path, tmp_path: Path) -> None:
    assert_went_back_as_alone(together, tmp_path, "cuda")


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_trains(together: Path, amp: str) -> None:
    records = read_log(together / amp)
    assert len(records) == 6
    # Overflows of fp16's first scales are skipped.
    assert [record.get("skipped") for record in records][-2:] == [None, None]
    assert all(record["loss"] is not None for record in records)
    # The same weights and batch, rounded otherwise.
    assert records[0]["loss"] != read_log(together / "dagger")[0]["loss"]
