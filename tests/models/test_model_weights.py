"""Weights on disk: round trip, refusals, nothing half-written."""

from __future__ import annotations

import json

import pytest
import torch
from model_cases import model_cases
from safetensors.torch import load_file, save_file

from swin_umamba import create_model
from swin_umamba.errors import UserError
from swin_umamba.weights import load_weights, read_config, save_weights, saved


@pytest.mark.parametrize("name", model_cases())
def test_round_trip(name, small, image, tmp_path):
    model = small(name).eval()
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    config = read_config(path)
    assert config == json.loads(json.dumps(model.config))
    again = create_model(**config, pretrained=path).eval()
    x = image(1, 2, 32, 32)
    for a, b in zip(model(x), again(x), strict=True):
        assert torch.equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_names_in_the_file_are_the_models(small, tmp_path):
    model = small("swin_umamba_d")
    save_weights(model, tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors").keys() == model.state_dict().keys()


def test_values_take_the_models_dtype(small, tmp_path):
    model = small("swin_umamba_d")
    save_weights(model.half(), tmp_path / "w.safetensors")
    other = small("swin_umamba_d")
    load_weights(other, tmp_path / "w.safetensors")
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a.float(), b)


def test_what_does_not_fit_is_named_and_changes_nothing(small, tmp_path):
    model = small("swin_umamba_d")
    tensors = dict(model.state_dict())
    del tensors["decoder.seg_layers.0.bias"]
    tensors["head.weight"] = torch.zeros(3)
    tensors["vssm_encoder.patch_embed.norm.bias"] = torch.zeros(7)
    path = tmp_path / "w.safetensors"
    save_file({key: value + 1 for key, value in tensors.items()}, path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit SwinUMambaD") as caught:
        load_weights(model, path)
    for part in (
        "1 missing: decoder.seg_layers.0.bias",
        "1 not in the model: head.weight",
        "vssm_encoder.patch_embed.norm.bias (7,) instead of (8,)",
    ):
        assert part in str(caught.value)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_long_lists_are_cut(small, tmp_path):
    save_weights(small("swin_umamba"), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"missing: .* and \d+ more"):
        small("swin_umamba_d", pretrained=tmp_path / "w.safetensors")


def test_missing_file(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights file at .*nowhere"):
        small("swin_umamba_d", pretrained=tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 2000])
def test_damaged_file(kept, small, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(small("swin_umamba_d"), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged or not a weights file"):
        small("swin_umamba_d", pretrained=path)


def test_a_file_may_lack_its_config(small, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not say which model"):
        read_config(tmp_path / "w.safetensors")


def test_a_failed_write_leaves_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def fail(tensors, partial, metadata):
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(saved, "save_file", fail)
    with pytest.raises(UserError, match=r"cannot write .*w\.safetensors: disk full"):
        save_weights(small("swin_umamba_d"), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
