"""Two processes of a CPU as `accelerate launch` starts them, by DDP and FSDP, do what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks_helpers import (
    HERE,
    LAUNCHERS,
    assert_as_alone,
    assert_goes_on_alone,
    assert_same_losses,
    assert_went_back_as_alone,
    launched,
    trained_together,
)
from ranks_program import CONFIGS
from run_helpers import assert_same_weights


@pytest.fixture(scope="module", params=["accelerate", "fsdp"])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    return trained_together(tmp_path_factory.mktemp(request.param), "cpu", request.param)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_comes_to_the_same(together: Path, tmp_path: Path, name: str) -> None:
    assert_as_alone(together, tmp_path, name, "cpu")


def test_all_stop_when_one_is_asked_to_and_go_on(together: Path) -> None:
    assert_same_weights(together / "dagger", together / "stopped")


def test_runs_go_on_with_another_number_of_processes(together: Path) -> None:
    assert_goes_on_alone(together, "cpu")
    assert_same_losses(together / "grown", together / "dagger")


def test_steps_that_are_not_finite_are_undone(together: Path, tmp_path: Path) -> None:
    assert_went_back_as_alone(together, tmp_path, "cpu")


def test_each_process_keeps_its_share(tmp_path: Path) -> None:
    """Of weights and optimizer state, which load from whole ones bit by bit."""
    launched(LAUNCHERS["fsdp"], device="cpu", arguments=[HERE / "sharding_program.py", tmp_path])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for kept in ("weights", "moments"):
        assert first[kept] + second[kept] == first["all"]
        assert first[kept] < 0.6 * first["all"]
        assert first[f"{kept} kept"] is second[f"{kept} kept"] is True
