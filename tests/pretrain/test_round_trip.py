"""The result of a pretraining works in models, the converter, the Hub and nnU-Net trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_helpers import NO_DECODER, go_pretrain, tiny_pretraining
from run_helpers import TINY, disc_case, tiny_config
from safetensors import safe_open
from safetensors.torch import load_file

from swin_umamba import create_model
from swin_umamba.models import SegmentationModel, create_encoder
from swin_umamba.nnunet.recipe import Recipe, pretrained_file
from swin_umamba.train import train
from swin_umamba.weights import convert, load_pretrained

V2: dict[str, Any] = {"encoder": "vmamba_v2_tiny_s1l8", "dims": (4, 8), "depths": (1, 1)}
# By the model's name, what stands before the + of a case.
OPTIONS: dict[str, dict[str, Any]] = {
    "swin_umamba": NO_DECODER,
    "swin_umamba_d": TINY,
    "swin_umamba+v2": V2,
    "swin_umamba_d+v2": {**V2, "decoder_depths": (1,)},
}
FIRST = {
    "swin_umamba": "stem.0.weight",
    "swin_umamba_d": "vssm_encoder.patch_embed.proj.weight",
    "swin_umamba+v2": "vssm_encoder.patch_embed.0.weight",
    "swin_umamba_d+v2": "vssm_encoder.patch_embed.0.weight",
}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each model, the file that a pretraining for it leaves."""
    folder = tmp_path_factory.mktemp("pretrained")
    found = {}
    for name, options in OPTIONS.items():
        config = tiny_pretraining(model=_of(name), model_options=options, iterations=2)
        go_pretrain(folder / name, config)
        found[name] = folder / name / "encoder.safetensors"
    return found


def _of(case: str) -> str:
    return case.split("+")[0]


def _model(name: str, path: Path | None = None, in_channels: int = 3) -> SegmentationModel:
    return create_model(
        _of(name), in_channels=in_channels, out_channels=2, pretrained=path, **OPTIONS[name]
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_models_take_every_tensor(encoders: dict[str, Path], name: str) -> None:
    model = _model(name, encoders[name])
    stored, own = load_file(encoders[name]), model.state_dict()
    report = model.pretrained_report
    assert report is not None
    assert report.counts() == {"loaded": len(stored)}
    assert all(torch.equal(own[n], t) for n, t in stored.items())


@pytest.mark.parametrize("name", ["swin_umamba_d", "swin_umamba+v2", "swin_umamba_d+v2"])
def test_encoders_alone_take_it(encoders: dict[str, Path], name: str) -> None:
    options = {n: v for n, v in OPTIONS[name].items() if n != "decoder_depths"}
    encoder = create_encoder(options.pop("encoder", "vmamba_tiny"), 3, encoders[name], **options)
    report = encoder.pretrained_report
    assert report is not None
    assert report.coverage == 1.0
    assert not report.of("missing", "skipped")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_first_layer_is_adapted_to_grey_images(encoders: dict[str, Path], name: str) -> None:
    model = _model(name, encoders[name], in_channels=1)
    report = model.pretrained_report
    assert report is not None
    assert [entry.target for entry in report.of("adapted")] == [FIRST[name]]
    assert len(report.of("loaded")) == len(load_file(encoders[name])) - 1
    total = load_file(encoders[name])[FIRST[name]].sum(1, keepdim=True)
    torch.testing.assert_close(model.state_dict()[FIRST[name]], total)


@pytest.mark.parametrize(
    ("source", "target"), [("swin_umamba", "swin_umamba_d"), ("swin_umamba_d", "swin_umamba")]
)
def test_encoders_move_to_the_other_model_but_for_their_patches(
    encoders: dict[str, Path], source: str, target: str
) -> None:
    model = _model(target, encoders[source])
    report = model.pretrained_report
    assert report is not None
    stored = load_file(encoders[source])
    skipped = {entry.source for entry in report.of("skipped") if entry.source}
    assert skipped == {
        n for n in stored if n.startswith(("stem.", "vssm_encoder.patch_embed.proj"))
    }
    assert len(report.of("loaded")) == len(stored) - len(skipped)
    if source == "swin_umamba":
        notes = {e.note for e in report.of("skipped") if e.source.startswith("stem.")}
        assert notes == {"this model has no stem"}


def test_a_stem_must_be_whole(encoders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    stored = load_file(encoders["swin_umamba"])
    del stored["stem.1.bias"]
    save_file(stored, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"1 missing: stem\.1\.bias"):
        _model("swin_umamba", tmp_path / "cut.safetensors")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_converter_keeps_tensors_and_provenance(
    encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "converted.safetensors"
    convert(encoders[name], out)
    before, after = load_file(encoders[name]), load_file(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)
    with safe_open(out, "pt") as file:
        kept = json.loads(file.metadata()["source_provenance"])
    assert kept["source_kind"] == "pretraining"
    assert json.loads(kept["pretraining"])["images"] == "colours"
    assert _model(name, out).pretrained_report is not None
    grey = tmp_path / "grey.safetensors"
    convert(encoders[name], grey, in_channels=1)
    assert load_file(grey)[FIRST[name]].shape[1] == 1


@pytest.mark.parametrize("name", OPTIONS)
def test_models_go_through_the_hubs_form(
    encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    model = _model(name, encoders[name])
    model.save_pretrained(tmp_path / "hub")
    again = SegmentationModel.from_pretrained(str(tmp_path / "hub"))
    stored = load_file(encoders[name])
    assert all(torch.equal(again.state_dict()[n], t) for n, t in stored.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_nnunet_trainers_load_it(
    encoders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `SwinUMambaTrainer.initialize` does; the models there have the published sizes."""
    monkeypatch.setenv("SWIN_UMAMBA_PRETRAINED", str(encoders[name]))
    path = pretrained_file("nnUNetTrainerSwinUMamba")
    network = _model(name)
    report = load_pretrained(network, path)
    assert report.coverage == 1.0
    assert not report.of("missing", "skipped")
    published = Recipe(_of(name), pretrained=True).build((64, 64), 3, 2, True)
    with pytest.raises(ValueError, match="its encoder is of"):
        load_pretrained(published, path)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_starts_from_it(encoders: dict[str, Path], tmp_path: Path, name: str) -> None:
    config = tiny_config(
        model=_of(name),
        model_options=OPTIONS[name],
        pretrained=str(encoders[name]),
        freeze_iterations=4,
        iterations=2,
    )
    cases = [disc_case(i) for i in range(3)]
    result = train(config, cases[:2], cases[2:], tmp_path / "run")
    assert result.pretrained is not None
    assert len(result.pretrained.entries) == len(load_file(encoders[name]))
    assert result.pretrained.coverage == 1.0
    assert (tmp_path / "run" / "pretrained.json").is_file()
    # The encoder is frozen except its patch embedding.
    stored, now = load_file(encoders[name]), result.model.cpu().state_dict()
    still = [n for n in stored if n.startswith("vssm_encoder.") and ".patch_embed." not in n]
    assert still
    assert all(torch.equal(stored[n], now[n]) for n in still)
