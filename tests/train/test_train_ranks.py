"""Two processes, as torchrun starts them, do what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks_helpers import (
    assert_as_alone,
    assert_goes_on_alone,
    assert_same_losses,
    trained_together,
)
from ranks_program import CONFIGS, Scaled, loss_and_gradient, run
from run_helpers import assert_same_weights

from swin_umamba.errors import UserError
from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.train import loop


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    return trained_together(tmp_path_factory.mktemp("ranks"), "cpu")


@pytest.mark.parametrize("batch_dice", [True, False])
def test_loss_and_gradient_are_those_of_the_whole_batch(together: Path, batch_dice: bool) -> None:
    """In float64, with another share of ignored pixels on each."""
    loss_of = DeepSupervisionLoss((0.7, 0.3), batch_dice)
    whole = loss_and_gradient(Scaled(), loss_of, slice(None))
    for rank in (0, 1):
        found = json.loads((together / f"losses{rank}.json").read_text())[str(batch_dice)]
        for ours, theirs in zip(found, whole, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_comes_to_the_same(together: Path, tmp_path: Path, name: str) -> None:
    assert_as_alone(together, tmp_path, name, "cpu")


def test_all_stop_when_one_is_asked_to_and_go_on(together: Path) -> None:
    assert_same_weights(together / "dagger", together / "stopped")


def test_a_run_of_two_goes_on_alone(together: Path) -> None:
    assert_goes_on_alone(together, "cpu")


def test_a_run_of_one_goes_on_with_two(together: Path) -> None:
    assert_same_losses(together / "grown", together / "dagger")


def test_batches_that_cannot_be_shared_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Three(loop.World):
        def __init__(self, device: str) -> None:
            super().__init__(device)
            self.size = 3

    monkeypatch.setattr(loop, "World", Three)
    with pytest.raises(UserError, match="batch_size: got 4, expected a multiple of the 3"):
        run(tmp_path, "dagger")
    assert not (tmp_path / "dagger").exists()


def test_single_devices_are_refused_under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="'cuda:1': expected auto, cuda or cpu"):
        loop.World("cuda:1")
