"""Other implementations are found in folders named by the environment, or reported as missing."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.ops import peers


@pytest.fixture
def no_mamba(monkeypatch):
    """Forget mamba-ssm's modules now, and whatever the test loads instead afterwards."""
    for name in [n for n in sys.modules if n.startswith(("mamba_ssm", "selective_scan_cuda"))]:
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("mamba_ssm", "selective_scan_cuda")):
            del sys.modules[name]


@pytest.mark.usefixtures("no_mamba")
def test_a_checkout_is_imported_without_its_heavy_init(monkeypatch, tmp_path):
    ops = tmp_path / "mamba_ssm" / "ops"
    ops.mkdir(parents=True)
    (tmp_path / "mamba_ssm/__init__.py").write_text("raise ImportError('transformers')\n")
    (ops / "__init__.py").touch()
    (ops / "selective_scan_interface.py").write_text("def selective_scan_fn(): return 'found'\n")
    (tmp_path / "selective_scan_cuda.py").touch()
    monkeypatch.setenv("SWIN_UMAMBA_PEER_MAMBA", str(tmp_path))
    path = list(sys.path)
    assert peers.load_mamba()() == "found"
    assert sys.path == path


@pytest.mark.usefixtures("no_mamba")
def test_a_checkout_that_was_not_built_is_an_import_error(monkeypatch, tmp_path):
    monkeypatch.setenv("SWIN_UMAMBA_PEER_MAMBA", str(tmp_path))
    with pytest.raises(ImportError, match="selective_scan_cuda"):
        peers.load_mamba()


def test_a_folder_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_PEER_MAMBA", "/no/such/folder")
    with pytest.raises(ImportError, match=r"SWIN_UMAMBA_PEER_MAMBA is '/no/such/folder'"):
        peers.load_mamba()


def test_missing_peers_say_how_to_get_them():
    found = {peer.name: peer for peer in peers.peers(torch.device("cpu"))}
    assert set(found) == set(peers.HOW_TO_GET)
    for name, peer in found.items():
        assert not peer.ours
        assert not peer.prepare
        assert peers.HOW_TO_GET[name] in str(peer.missing)
