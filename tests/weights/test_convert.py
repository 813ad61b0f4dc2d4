"""`swin-umamba convert`: files that everything here accepts, and the original layout."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner
from weights_cases import SMALL, later_names, small, vmamba

from swin_umamba import create_model, model_names
from swin_umamba.cli import app
from swin_umamba.errors import UserError
from swin_umamba.weights import (
    convert,
    load_pretrained,
    load_weights,
    read_checkpoint,
    read_config,
    save_release_checkpoint,
    save_weights,
)
from swin_umamba.weights.report import LOADED, SKIPPED
from swin_umamba.weights.saved import read_metadata


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.mark.parametrize("later", [False, True])
def test_an_encoder_from_vmamba(saved, tmp_path, later):
    tensors = vmamba()
    source = saved({"model": later_names(tensors) if later else tensors})
    out, report = tmp_path / "encoder.safetensors", tmp_path / "report.json"
    code, said = run(source, out, "--report", report)
    assert code == 0, said
    assert "VMamba's encoder" in said
    assert "100.0 % of the tensors" in said
    found = load_file(out)
    assert len(found) == len(tensors) - 3
    assert all(name.startswith("vssm_encoder.") for name in found)
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert metadata["source"] == source.name
    assert json.loads(report.read_text())["counts"] == {"renamed": len(found), "skipped": 3}
    for name in model_names():
        model = create_model(name, in_channels=2, out_channels=2, pretrained=out, **SMALL)
        key = "vssm_encoder.layers.2.blocks.1.self_attention.A_logs"
        assert torch.equal(model.state_dict()[key], found[key])


def test_where_a_file_came_from_is_told(saved, tmp_path):
    source = saved({"model": vmamba(1), "model_ema": vmamba(2)})
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert run(source, first, "--ema", "--in-channels", 1, "--first-layer", "sum")[0] == 0
    assert run(first, second)[0] == 0
    metadata = read_metadata(first)
    assert json.loads(metadata["conversion"]) == {
        "first_layer": "sum", "release_patch_norm": False, "ema": True, "encoder_only": False
    }  # fmt: skip
    again = read_metadata(second)
    assert again["source"] == first.name
    assert again["source_sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    earlier = json.loads(again["source_provenance"])
    assert earlier == {n: v for n, v in metadata.items() if n != "format"}
    assert json.loads(again["conversion"])["first_layer"] is None


def test_for_a_given_number_of_channels(saved, tmp_path):
    source, out = saved({"model": vmamba()}), tmp_path / "encoder.safetensors"
    code, said = run(source, out, "--in-channels", 1, "--first-layer", "sum")
    assert code == 0, said
    weight = load_file(out)["vssm_encoder.patch_embed.proj.weight"]
    assert torch.equal(weight, vmamba()["patch_embed.proj.weight"].sum(1, keepdim=True))


@pytest.mark.parametrize("meant", model_names())
@pytest.mark.parametrize("name", model_names())
def test_an_encoder_serves_all_models(saved, tmp_path, meant, name):
    source, out = saved({"model": vmamba()}), tmp_path / "encoder.safetensors"
    code, said = run(source, out, "--model", meant)
    assert code == 0, said
    report = load_pretrained(small(name, 2), out)
    left = 0 if name == "swin_umamba_d" else 2  # the patch embedding follows a stem
    assert report.counts().get(SKIPPED, 0) == left
    assert report.counts()[LOADED] == len(vmamba()) - 3 - left
    assert report.coverage == 1


PATCHES = {f"vssm_encoder.patch_embed.proj.{kind}" for kind in ("weight", "bias")}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["convert", "load", "twice"])
@pytest.mark.parametrize("target", model_names())
@pytest.mark.parametrize("name", model_names())
def test_the_encoder_alone_of_a_whole_model(saved, tmp_path, name, target, way):
    whole = small(name, 5)
    source, out = saved({"network_weights": dict(whole.state_dict())}), tmp_path / "e.safetensors"
    if name != target:
        with pytest.raises(ValueError, match="its encoder alone: encoder_only"):
            load_pretrained(small(target, 6), source)
    if way != "load":
        code, said = run(source, out, "--encoder-only")
        assert code == 0, said
        printed = " ".join(said.split())  # the table wraps its rows at the console's width
        assert (
            printed.count("only the encoder was requested") == 1
        )  # one row of the table, not many
        assert load_file(out).keys() == {n for n in whole.state_dict() if "vssm" in n}
        with pytest.raises(ValueError, match="does not say which model"):
            read_config(out)
        source = out
    if way == "twice":
        source = tmp_path / "again.safetensors"
        code, said = run(out, source)
        assert code == 0, said
    model = small(target, 6)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    report = load_pretrained(model, source, encoder_only=way == "load")
    same = (name == "swin_umamba_d") == (target == "swin_umamba_d")
    for n, tensor in model.state_dict().items():
        if n.startswith("vssm") and (same or n not in PATCHES):
            assert torch.equal(tensor, whole.state_dict()[n])
        else:
            assert torch.equal(tensor, before[n])
    skipped = {e.target for e in report.of(SKIPPED) if e.target}
    assert skipped == (set() if same else PATCHES)
    sources = {e.source for e in report.entries if e.source}
    assert sources == set(whole.state_dict() if way == "load" else load_file(source))


def test_an_encoder_alone_is_no_checkpoint_of_the_release(saved, tmp_path):
    source = saved(dict(small("swin_umamba").state_dict()))
    code, said = run(source, tmp_path / "out.pth", "--encoder-only")
    assert code == 1
    assert "holds only an encoder" in said


def test_larger_encoders_are_converted_as_they_are(saved, tmp_path):
    deeper = {**SMALL, "depths": (1, 1, 3, 1)}
    encoder = small("swin_umamba_d", **deeper).vssm_encoder.state_dict()
    code, said = run(saved(dict(encoder)), tmp_path / "e.safetensors")
    assert code == 0, said
    load_pretrained(small("swin_umamba_v1", **deeper), tmp_path / "e.safetensors")


LEFT = [("--release-patch-norm",), ("--in-channels", 1, "--first-layer", "drop")]


@pytest.mark.parametrize("options", LEFT, ids=["norm", "drop"])
@pytest.mark.parametrize("name", [None, *model_names()])
def test_what_was_left_out_on_request_is_not_missed(saved, tmp_path, name, options):
    """name: a whole model, or None, VMamba's encoder."""
    content = vmamba() if name is None else dict(small(name).state_dict())
    source, out = saved({"model": content}), tmp_path / "out.safetensors"
    code, said = run(source, out, *options)
    assert code == 0, said
    files = [out]
    code, said = run(out, tmp_path / "again.safetensors")
    if "drop" in options:  # nothing is left that tells the image's channels
        assert code == 1
        assert "it lacks" in said
    else:
        assert code == 0, said
        files.append(tmp_path / "again.safetensors")
    for path in files:
        model = small(name or "swin_umamba_d", 2, in_channels=1 if "drop" in options else 3)
        before = {n: t.clone() for n, t in model.state_dict().items()}
        report = load_pretrained(model, path)
        left = {e.target for e in report.of(SKIPPED)}
        assert left == before.keys() - load_file(path).keys() - (
            {n for n in before if n.startswith("decoder.")} if name is None else set()
        )
        assert left
        for n in left:
            assert torch.equal(model.state_dict()[n], before[n])
    if name is not None:
        code, said = run(source, tmp_path / "out.pth", *options)
        assert code == 1
        assert "would be missing" in said
        assert not (tmp_path / "out.pth").exists()


def test_a_file_cannot_excuse_what_else_is_lacking(tmp_path):
    tensors = dict(small("swin_umamba_d").state_dict())
    lacking = "vssm_encoder.layers.0.blocks.0.ln_1.bias"
    del tensors[lacking]
    save_file(tensors, tmp_path / "w.safetensors", {"left_out": lacking})
    with pytest.raises(ValueError, match="1 missing"):
        load_pretrained(small("swin_umamba_d"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", model_names())
def test_ours_to_the_releases_layout_and_back(tmp_path, name):
    model = small(name, 7, in_channels=2)
    ours, theirs, again = (tmp_path / n for n in ("a.safetensors", "b.pth", "c.safetensors"))
    save_weights(model, ours)
    for source, target in ((ours, theirs), (theirs, again)):
        code, said = run(source, target)
        assert code == 0, said
    content = read_checkpoint(theirs)
    # What nnU-Net's predictor reads.
    assert set(content) >= {
        "network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"
    }  # fmt: skip
    assert content["trainer_name"].startswith("nnUNetTrainerSwinUMamba")
    assert content["init_args"]["configuration"] == "2d"
    for path in (theirs, again):
        found = read_checkpoint(path)
        found = found.get("network_weights", found)
        assert found.keys() == model.state_dict().keys()
        for key, tensor in model.state_dict().items():
            assert torch.equal(found[key], tensor)
    rebuilt = create_model(**read_config(again))
    load_weights(rebuilt, again)
    save_release_checkpoint(model, tmp_path / "d.pth")
    assert torch.load(tmp_path / "d.pth", weights_only=True)["network_weights"].keys()


@pytest.mark.parametrize("name", model_names())
def test_a_whole_model_says_how_to_build_it(saved, tmp_path, name):
    source = saved({"network_weights": dict(small(name).state_dict())})
    convert(source, tmp_path / "w.safetensors")
    config = read_config(tmp_path / "w.safetensors")
    assert config["name"] == name
    assert (config["in_channels"], config["out_channels"]) == (3, 4)
    assert tuple(config["dims"]) == SMALL["dims"]
    assert tuple(config["depths"]) == SMALL["depths"]
    assert config["d_state"] == SMALL["d_state"]


def test_what_cannot_be_converted_leaves_nothing_behind(saved, tmp_path):
    half = vmamba()
    del half["layers.1.blocks.0.ln_1.bias"]
    model = dict(small("swin_umamba_d").state_dict())
    del model["decoder.seg_layers.3.bias"]
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"old")
    cases = [
        ({"model": half}, (), "1 missing"),
        (model, (), "1 missing"),
        (dict(small("swin_umamba").state_dict()), ("--model", "swin_umamba_d"), "not of"),
        ({"conv.weight": torch.zeros(1)}, (), "another model"),
        ({"model": vmamba()}, ("--model", "unet"), "expected one of"),
        ({"model": vmamba()}, ("--first-layer", "magic"), "first_layer"),
    ]
    for content, options, message in cases:
        code, said = run(saved(content), out, *options)
        assert code == 1
        assert message in said
        assert "Traceback" not in said
        assert out.read_bytes() == b"old"
    code, said = run(saved({"model": vmamba()}), tmp_path / "out.pth")
    assert code == 1
    assert "holds only an encoder" in said
    code, said = run(tmp_path / "none.pth", out)
    assert code == 1
    assert "no weights file at" in said
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pth", "out.safetensors"}


def test_a_failed_write_is_told(saved, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match="No space left on device"):
        convert(saved({"model": vmamba()}), tmp_path / "w.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]
