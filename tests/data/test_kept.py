"""The cache does not grow without limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from data_helpers import write_nnunet
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.common.locks import locked
from swin_umamba.data.prepare.cache import PREPARE_LOCK
from swin_umamba.data.prepare.prepared import prepare_dataset

DAY = 86400


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_nnunet(tmp_path / "data", cases=6)


def _age(folder: Path, days: float) -> list[Path]:
    paths = sorted(folder.glob("*.npy"))
    for path in paths:
        os.utime(path, (time.time() - days * DAY,) * 2)
    return paths


def _run(*words: str) -> Result:
    return CliRunner().invoke(app, ["cache", *words])


def test_cases_of_other_plans_go_once_nobody_has_read_them_for_long(data: Path) -> None:
    folder = prepare_dataset(data).folder
    old = _age(folder, 31)
    assert len(old) == 18
    prepare_dataset(data, changes={"axis": 1})  # other content for every case
    assert not any(path.exists() for path in old)
    new = _age(folder, 31)
    assert len(new) == 18
    prepare_dataset(data, changes={"axis": 1})
    assert all(path.exists() for path in new)  # they were read
    _age(folder, 20)
    prepare_dataset(data)
    assert all(path.exists() for path in new)


def test_the_command_lists_and_clears_what_is_unused(data: Path, cache: Path) -> None:
    folder = prepare_dataset(data).folder
    _age(folder, 3)
    (cache / "preprocessed" / "stray").write_bytes(b"x")
    os.utime(cache / "preprocessed" / "stray", (1e12, 1e12))
    assert "last used" in _run().output
    assert _run("--clear-unused", "4").output == ""
    assert len(list(folder.glob("*.npy"))) == 18
    assert f"Removed from {folder}" in _run("--clear-unused", "2").output
    assert list(folder.glob("*.npy")) == []
    assert _run("--clear-unused", "inf").exit_code == 1
    prepare_dataset(data)
    with locked(folder, "preparation of this dataset", name=PREPARE_LOCK):
        for words in (("--clear-unused", "0"), ("--clear-all",), ("--clear", "data")):
            result = _run(*words)
            assert result.exit_code == 1
            assert "is in use by another preparation" in " ".join(result.output.split())
    assert _run("--clear-all").exit_code == 0
    assert list((cache / "preprocessed").iterdir()) == []
