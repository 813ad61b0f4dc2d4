"""Two processes pretrain like one."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_once import made_once
from pretrain_helpers import coloured_tiles, go_pretrain, tiny_pretraining
from pretrain_program import CONFIGS
from ranks_helpers import HERE, launched, launcher
from safetensors.torch import load_file

from swin_umamba.errors import UserError
from swin_umamba.loop.world import World
from swin_umamba.pretrain import pretrain
from swin_umamba.runs.folder import read_log


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        program = [HERE / "pretrain_program.py", folder]
        launched(launcher("torchrun", 2), device="cpu", arguments=program)

    return made_once(tmp_path_factory, "pretrained-together", make)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_come_to_what_one_comes_to(together: Path, tmp_path: Path, name: str) -> None:
    alone = go_pretrain(tmp_path / name, tiny_pretraining(**CONFIGS[name]))
    records = read_log(together / name)
    assert len(records) == len(alone.records) == 6
    for ours, theirs in zip(records, alone.records, strict=True):
        assert ours.keys() == theirs.keys()
        for number in ours.keys() - {"seconds", "step", "waited"}:
            assert ours[number] == pytest.approx(theirs[number], rel=1e-3), number
    first, second = (load_file(f / name / "encoder.safetensors") for f in (together, tmp_path))
    for key, tensor in first.items():
        assert (tensor - second[key]).norm() <= 1e-3 * second[key].norm() + 1e-5, key


def test_batches_must_be_shared_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "size", 3, raising=False)

    def three(self: World, device: str) -> None:
        self.__dict__.update(rank=0, size=3, sharded=False)

    monkeypatch.setattr(World, "__init__", three)
    with pytest.raises(UserError, match="expected a multiple of 6 for 3 processes"):
        pretrain(tiny_pretraining(), coloured_tiles(), tmp_path / "run")
