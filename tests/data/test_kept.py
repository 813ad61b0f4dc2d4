"""`swin-umamba cache`: preprocessed datasets and downloads, listed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_helpers import write_bare
from typer.testing import CliRunner, Result

from swin_umamba.cli import app
from swin_umamba.data.prepare.prepared import prepare_dataset, preparing


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets, and a download."""
    monkeypatch.setenv("SWIN_UMAMBA_CACHE", str(tmp_path / "cache"))
    for name in ("one", "two"):
        prepare_dataset(write_bare(tmp_path / name))
    (tmp_path / "cache" / "weights.pth").write_bytes(bytes(2_000_000))
    return tmp_path / "cache"


def _cache(*words: str) -> Result:
    return CliRunner().invoke(app, ["cache", *words])


def test_it_is_listed(cache: Path) -> None:
    done = _cache()
    assert done.exit_code == 0, done.output
    assert str(cache) in done.stdout.replace("\n", "")
    for words in ("dataset one", "dataset two", "other weights.pth", "2.0 MB"):
        assert words in done.stdout


def test_one_dataset_is_removed(cache: Path) -> None:
    assert _cache("--clear", "one").exit_code == 0
    assert [path.name for path in (cache / "preprocessed").iterdir()] == ["two"]
    done = _cache("--clear", "one")
    assert done.exit_code == 1
    assert "the cache holds no dataset 'one'; it has two" in done.stderr
    assert _cache("--clear", "../cache").exit_code == 1


def test_none_is_removed_while_it_is_prepared(cache: Path) -> None:
    with preparing(cache / "preprocessed" / "one"):
        done = _cache("--clear", "one")
    assert done.exit_code == 1
    assert "is in use by another preparation" in done.stderr
    assert len(list((cache / "preprocessed" / "one").iterdir())) > 9


def test_all_is_removed(cache: Path) -> None:
    assert _cache("--clear-all").exit_code == 0
    assert list((cache / "preprocessed").iterdir()) == []
    assert "It is empty." in _cache().stdout
