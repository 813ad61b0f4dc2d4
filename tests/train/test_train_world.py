"""Requirements of processes that train together, and what each of them holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks_helpers import HERE, launched, launcher
from ranks_program import run

from swin_umamba.errors import UserError
from swin_umamba.train import loop


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


@pytest.mark.slow
def test_each_process_keeps_its_share(tmp_path: Path) -> None:
    """Of weights and optimizer state, which load from whole ones bit by bit."""
    launched(launcher("fsdp", 2), device="cpu", arguments=[HERE / "sharding_program.py", tmp_path])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for kept in ("weights", "moments"):
        assert first[kept] + second[kept] == first["all"]
        assert first[kept] < 0.6 * first["all"]
        assert first[f"{kept} kept"] is second[f"{kept} kept"] is True
