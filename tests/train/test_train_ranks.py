"""Two processes, as torchrun starts them, do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks_program import CONFIGS, Scaled, loss_and_gradient, run
from run_helpers import assert_same_weights, tiny_config
from safetensors.torch import load_file

from swin_umamba import create_model
from swin_umamba.errors import UserError
from swin_umamba.losses import DeepSupervisionLoss
from swin_umamba.train import loop
from swin_umamba.train.run_folder import read_log
from swin_umamba.weights import save_weights

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes trained."""
    folder = tmp_path_factory.mktemp("ranks")
    frozen = CONFIGS["frozen"]
    torch.manual_seed(7)
    model = create_model(frozen["model"], in_channels=1, out_channels=2, **frozen["model_options"])
    save_weights(model, folder / "v1.safetensors")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, HERE / "ranks_program.py", folder],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


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
    if "pretrained" in CONFIGS[name]:
        (tmp_path / "v1.safetensors").symlink_to(together / "v1.safetensors")
    alone = run(tmp_path, name)
    records = read_log(together / name)
    assert len(records) == len(alone.records) == 6
    for ours, theirs in zip(records, alone.records, strict=True):
        # Six steps of float32, whose sums over a batch are taken in another order.
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient"] == pytest.approx(theirs["gradient"], rel=1e-4)
        assert ours["lr"] == theirs["lr"]
        assert ours.get("dsc") == pytest.approx(theirs.get("dsc"), abs=0.01)
    first, second = (load_file(f / name / "model.safetensors") for f in (together, tmp_path))
    torch.manual_seed(alone.records[0]["iteration"] * 0)
    start = create_model(
        tiny_config(**CONFIGS[name]).model,
        in_channels=1,
        out_channels=2,
        pretrained=together / "v1.safetensors" if "pretrained" in CONFIGS[name] else None,
        **CONFIGS[name]["model_options"],
    ).state_dict()
    apart = sum((first[k] - second[k]).square().sum() for k in first).sqrt()
    moved = sum((start[k] - second[k]).square().sum() for k in first).sqrt()
    assert moved > 0
    assert apart < 1e-3 * moved


def test_all_stop_when_one_is_asked_to_and_go_on(together: Path) -> None:
    assert_same_weights(together / "dagger", together / "stopped")


def test_a_run_of_two_goes_on_alone(together: Path, tmp_path: Path) -> None:
    assert len(read_log(together / "handed_over")) == 2
    result = run(together, "dagger", into="handed_over", resume=True)
    whole = read_log(together / "dagger")
    for ours, theirs in zip(result.records, whole, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


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
