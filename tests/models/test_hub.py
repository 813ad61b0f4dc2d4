"""save_pretrained and from_pretrained, offline."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch

from swin_umamba import model_names
from swin_umamba.models import SegmentationModel, hub
from swin_umamba.models.swin_umamba import SwinUMamba
from swin_umamba.models.swin_umamba_d import SwinUMambaD


@pytest.mark.parametrize("name", model_names())
def test_round_trip(name, small, image, tmp_path):
    model = small(name).eval()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["name"] == name
    card = (tmp_path / "README.md").read_text()
    assert "library_name: swin-umamba" in card
    assert "from_pretrained(" in card
    x = image(1, 2, 32, 32)
    for kind in (SegmentationModel, type(model)):
        again = kind.from_pretrained(tmp_path)
        assert type(again) is type(model)
        assert not again.training
        for a, b in zip(model(x), again(x), strict=True):
            assert torch.equal(a, b)


def test_a_file_from_the_hub_is_asked_for_by_name(small, tmp_path, monkeypatch):
    small("swin_umamba_d").save_pretrained(tmp_path)
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename, options.get("revision")))
        return str(tmp_path / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", download)
    SwinUMambaD.from_pretrained("somebody/nuclei", revision="v1")
    assert asked[-1] == ("somebody/nuclei", "model.safetensors", "v1")


def test_arguments_of_older_hubs_are_no_models(small, tmp_path):
    """huggingface_hub before 1.0 hands on two more of its own, unset."""
    small("swin_umamba_d").save_pretrained(tmp_path)
    model = SwinUMambaD._from_pretrained(
        model_id=str(tmp_path), proxies=None, resume_download=None, token=None
    )
    assert model.in_channels == 2


def test_other_channels_are_the_callers_choice(small, tmp_path):
    small("swin_umamba_d").save_pretrained(tmp_path)
    model = SwinUMambaD.from_pretrained(tmp_path, in_channels=4)
    assert model.in_channels == 4


def test_what_does_not_fit_is_refused(small, tmp_path):
    model = small("swin_umamba_d")
    model.save_pretrained(tmp_path / "d")
    with pytest.raises(ValueError, match="holds a SwinUMambaD, expected a SwinUMamba"):
        SwinUMamba.from_pretrained(tmp_path / "d")
    with pytest.raises(ValueError, match="strict"):
        SwinUMambaD.from_pretrained(tmp_path / "d", strict=False)
    model.config = None
    with pytest.raises(ValueError, match="not made by create_model"):
        model.save_pretrained(tmp_path / "e")
