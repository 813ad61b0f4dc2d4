"""save_pretrained and from_pretrained, offline."""

from __future__ import annotations

import json
import shutil
from functools import partial
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from model_cases import model_cases

from swin_umamba.models import SegmentationModel, hub
from swin_umamba.models.swin_umamba import SwinUMamba
from swin_umamba.models.swin_umamba_d import SwinUMambaD


@pytest.mark.parametrize("name", model_cases())
def test_round_trip(name, small, image, tmp_path):
    model = small(name).eval()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["name"] == name.partition("+")[0]
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


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A folder that stands in for the Hub: uploads are stored there, downloads come from it."""
    root = tmp_path / "hub"

    def create_repo(self, repo_id, **options):
        assert options["exist_ok"]
        full = repo_id if "/" in repo_id else f"somebody/{repo_id}"
        (root / full).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=full)

    def upload_folder(self, *, repo_id, folder_path, commit_message, **options):
        shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)
        return f"{repo_id}: {commit_message}"

    def download(repo_id, filename, **options):
        return str(root / repo_id / filename)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", download)
    return root


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("way", ["push_to_hub", "save_pretrained"])
def test_what_is_pushed_comes_back(name, way, small, image, hub_folder, tmp_path):
    model = small(name).eval()
    if way == "push_to_hub":
        told = model.push_to_hub("somebody/nuclei", commit_message="first", private=True)
    else:
        told = model.save_pretrained(
            tmp_path / "saved", push_to_hub=True, repo_id="somebody/nuclei", commit_message="first"
        )
    assert told == "somebody/nuclei: first"
    pushed = hub_folder / "somebody" / "nuclei"
    assert {p.name for p in pushed.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert json.loads((pushed / "config.json").read_text()) == json.loads(json.dumps(model.config))
    card = (pushed / "README.md").read_text()
    assert 'from_pretrained("somebody/nuclei")' in card
    again = SegmentationModel.from_pretrained("somebody/nuclei")
    x = image(1, 2, 32, 32)
    for a, b in zip(model(x), again(x), strict=True):
        assert torch.equal(a, b)


def test_a_card_names_no_repository_by_half(small, hub_folder):
    small("swin_umamba_d").push_to_hub("nuclei", model_card_kwargs={"model_description": "Nuclei."})
    card = (hub_folder / "somebody" / "nuclei" / "README.md").read_text()
    assert "Nuclei." in card
    assert 'from_pretrained("nuclei")' not in card


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


def test_what_was_chosen_is_kept(small, image, tmp_path):
    model = small("swin_umamba_d").eval()
    model.deep_supervision = False
    header = {"license": "mit", "language": "en", "pipeline_tag": "image-feature-extraction"}
    model.save_pretrained(tmp_path, model_card_kwargs={**header, "model_description": "Nuclei."})
    again = SegmentationModel.from_pretrained(tmp_path)
    assert not again.deep_supervision
    x = image(1, 2, 16, 16)
    assert torch.equal(again(x), model(x))
    data = huggingface_hub.ModelCard.load(tmp_path / "README.md").data
    assert {name: data.get(name) for name in header} == header
    assert data.library_name == "swin-umamba"
    assert "Nuclei." in (tmp_path / "README.md").read_text()


def test_a_backend_stays_on_its_machine(small, tmp_path):
    small("swin_umamba_d", backend="reference").save_pretrained(tmp_path)
    again = SegmentationModel.from_pretrained(tmp_path)
    backends = {m.backend for m in again.modules() if hasattr(m, "backend")}
    assert backends == {"auto"}
    assert "backend" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("way", ["from_pretrained", "create_model"])
@pytest.mark.parametrize("name", model_cases())
def test_new_classes_are_told(name, way, small, tmp_path, recwarn):
    small(name).save_pretrained(tmp_path)
    assert not recwarn
    load = {
        "from_pretrained": partial(SegmentationModel.from_pretrained, tmp_path),
        "create_model": partial(small, name, pretrained=tmp_path / "model.safetensors"),
    }[way]
    with pytest.warns(UserWarning, match="randomly initialized") as warned:
        model = load(out_channels=5)
    heads = [n for n, p in model.named_parameters() if len(p) == 5 and ("out_" in n or "seg_" in n)]
    assert len(heads) == 2 * len(model.scales)
    assert all(head in str(warned[0].message) for head in heads)


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
