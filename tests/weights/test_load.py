"""Loading every kind of checkpoint into models, with a report on every tensor."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner
from weights_cases import SMALL, later_names, small, vmamba

from swin_umamba import create_model, model_names
from swin_umamba.cli import app
from swin_umamba.errors import UserError
from swin_umamba.train import TrainConfig
from swin_umamba.train.network import build_model
from swin_umamba.weights import continue_weights, convert, load_pretrained, save_weights
from swin_umamba.weights.first_layer import adapted
from swin_umamba.weights.load import PATCH_NORM
from swin_umamba.weights.report import ADAPTED, LOADED, RENAMED, SKIPPED

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Config:
    """Stands in for the yacs config in VMamba's files."""


def wrapped(tensors: dict[str, torch.Tensor], kind: str) -> Any:
    prefixed = OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())
    compiled = {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()}
    return {
        "model": {"model": tensors, "config": Config(), "epoch": 3},
        "state dict": tensors,
        "prefixed": prefixed,
        "compiled": {"state_dict": compiled},
        "nnunet": {"network_weights": tensors, "logging": Config(), "best": np.float64(0.5)},
    }[kind]


def assert_encoder(model: Any, tensors: dict[str, torch.Tensor], but: tuple[str, ...] = ()) -> None:
    found = model.vssm_encoder.state_dict()
    for name, tensor in found.items():
        source = name
        if name.startswith("downsamples."):
            _, stage, rest = name.split(".", 2)
            source = f"layers.{stage}.downsample.{rest}"
        if name not in but:
            assert torch.equal(tensor, tensors[source]), name


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", ["model", "state dict", "prefixed", "compiled"])
def test_vmamba_gives_the_encoder(saved, kind, later):
    tensors = vmamba()
    path = saved(wrapped(later_names(tensors) if later else tensors, kind))
    model = small("swin_umamba_d")
    report = load_pretrained(model, path)
    assert_encoder(model, tensors)
    assert report.kind == "VMamba's encoder"
    assert report.coverage == report.parameter_coverage == 1
    assert report.counts() == {RENAMED: len(tensors) - 3, SKIPPED: 3}


@pytest.mark.parametrize("name", ["swin_umamba", "swin_umamba_v1"])
def test_behind_a_stem_the_patch_embedding_stays(saved, name):
    tensors = vmamba()
    model = small(name)
    before = {n: t.clone() for n, t in model.vssm_encoder.patch_embed.state_dict().items()}
    report = load_pretrained(model, saved({"model": tensors}))
    patches = ("patch_embed.proj.weight", "patch_embed.proj.bias")
    assert_encoder(model, tensors, but=patches)
    assert torch.equal(model.vssm_encoder.patch_embed.proj.weight, before["proj.weight"])
    assert {e.source for e in report.of(SKIPPED)} == {
        *patches,
        "norm.weight",
        "norm.bias",
        "head.weight",
    }
    assert report.coverage == 1


def test_the_releases_slip_is_an_option(saved):
    tensors = vmamba()
    model = small("swin_umamba")
    tensors["patch_embed.norm.weight"] = torch.full((8,), 5.0)
    tensors["patch_embed.norm.bias"] = torch.full((8,), 6.0)
    report = load_pretrained(model, saved({"model": tensors}), release_patch_norm=True)
    norm = model.vssm_encoder.patch_embed.norm
    assert torch.equal(norm.weight, torch.ones(8))
    assert torch.equal(norm.bias, torch.full((8,), 6.0))
    assert PATCH_NORM in {entry.target for entry in report.of(SKIPPED)}


def test_averaged_weights_are_taken_on_request(saved):
    plain, averaged = vmamba(1), vmamba(2)
    path = saved({"model": plain, "model_ema": averaged})
    model = small("swin_umamba_d")
    load_pretrained(model, path)
    assert_encoder(model, plain)
    load_pretrained(model, path, ema=True)
    assert_encoder(model, averaged)
    with pytest.raises(ValueError, match="no averaged weights"):
        load_pretrained(model, saved({"model": plain}), ema=True)


@pytest.mark.parametrize("kind", ["nnunet", "state dict", "prefixed", "compiled"])
@pytest.mark.parametrize("name", model_names())
def test_a_whole_model_is_loaded_bitwise(saved, name, kind):
    source, model = small(name, 5), small(name, 6)
    report = load_pretrained(model, saved(wrapped(dict(source.state_dict()), kind)))
    for n, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[n], tensor), n
    expected = LOADED if kind in ("nnunet", "state dict") else RENAMED
    assert report.counts() == {expected: len(source.state_dict())}


@pytest.mark.parametrize("way", ["mean", "sum", "repeat"])
@pytest.mark.parametrize("name", model_names())
def test_other_image_channels_and_classes(saved, name, way):
    source = small(name, 5)
    model = small(name, 6, in_channels=5, out_channels=2)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    report = load_pretrained(model, saved(dict(source.state_dict())), first_layer=way)
    heads = [n for n in before if n.startswith(("out_layers.", "decoder.seg_layers."))]
    assert {e.target for e in report.of(SKIPPED)} == set(heads)
    for n in heads:
        assert torch.equal(model.state_dict()[n], before[n])
    fitted = report.of(ADAPTED)
    assert len(fitted) == (1 if name == "swin_umamba_d" else 3)
    for entry in fitted:
        expected = adapted(source.state_dict()[entry.target], 5, way)
        assert torch.equal(model.state_dict()[entry.target], expected)
        assert "3 image channels to 5" in entry.note


def test_ways_to_adapt_the_first_layer():
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    grey = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    whole = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    for channels in (1, 2, 3, 6):
        same = torch.nn.functional.conv2d(
            grey.expand(-1, channels, -1, -1), adapted(weight, channels, "mean")
        )
        torch.testing.assert_close(same, whole)
    assert torch.equal(adapted(weight, 1, "sum"), weight.sum(1, keepdim=True))
    repeated = adapted(weight, 6, "repeat")
    torch.testing.assert_close(repeated, weight.repeat(1, 2, 1, 1) / 2)


def test_dropped_first_layers_are_told(saved):
    model = small("swin_umamba_d", in_channels=1)
    before = model.vssm_encoder.patch_embed.proj.weight.clone()
    report = load_pretrained(model, saved({"model": vmamba()}), first_layer="drop")
    assert torch.equal(model.vssm_encoder.patch_embed.proj.weight, before)
    assert any("image channels" in entry.note for entry in report.of(SKIPPED))


def test_a_half_matching_file_is_an_error_and_changes_nothing(saved):
    tensors = vmamba()
    tensors["layers.1.blocks.0.self_attention.A_logs"] = torch.zeros(3, 3)
    tensors["layers.9.blocks.0.ln_1.weight"] = torch.zeros(3)
    del tensors["layers.0.blocks.0.ln_1.bias"]
    path = saved({"model": tensors})
    model = small("swin_umamba_d")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit SwinUMambaD") as caught:
        load_pretrained(model, path)
    for part in ("checkpoint.pth", "A_logs", "(3, 3)", "layers.9", "1 missing", "ln_1.bias"):
        assert part in str(caught.value)
    for n, t in model.state_dict().items():
        assert torch.equal(t, before[n])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved, tmp_path, value):
    model = small("swin_umamba_d")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    last = [name for name, tensor in tensors.items() if tensor.is_floating_point()][-1]
    tensors[last].view(-1)[-1] = value
    path = saved({"network_weights": tensors})
    message = f"checkpoint.pth: it holds NaN or infinite values in {last}"
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, path)
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out.safetensors")
    own = tmp_path / "own.safetensors"
    save_weights(model, own)
    save_file(tensors, own, {"format": "pt"})
    with pytest.raises(ValueError, match=r"own\.safetensors: it holds NaN or infinite values"):
        continue_weights(model, own)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_less_coverage_may_be_asked_for(saved):
    tensors = vmamba()
    tensors["layers.1.blocks.0.self_attention.A_logs"] = torch.zeros(3, 3)
    path = saved({"model": tensors})
    with pytest.raises(ValueError, match="expected 100 %"):
        load_pretrained(small("swin_umamba_d"), path)
    report = load_pretrained(small("swin_umamba_d"), path, min_coverage=0.9)
    assert 0.9 < report.coverage < 1
    with pytest.raises(ValueError, match="min_coverage"):
        load_pretrained(small("swin_umamba_d"), path, min_coverage=2)


def test_other_models_are_refused_with_the_reason(saved, tmp_path):
    later = later_names(vmamba())
    later["layers.0.blocks.0.mlp.fc1.weight"] = torch.zeros(4, 4)
    later["layers.0.downsample.1.weight"] = torch.zeros(4, 4, 3, 3)
    cases = {
        "not of the first, as its blocks have MLP branches, it downsamples by convo": {
            "model": later
        },
        "another model, with tensors such as conv1.weight": {"conv1.weight": torch.zeros(1)},
        "holds no tensors by name, only epoch": {"epoch": 3},
        "it holds a list": [torch.zeros(1)],
    }
    for message, content in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_pretrained(small("swin_umamba_d"), saved(content))
        assert "supported are" in str(caught.value)
    with pytest.raises(ValueError, match="does not fit SwinUMambaD"):
        load_pretrained(small("swin_umamba_d"), saved(dict(small("swin_umamba").state_dict())))
    deeper = create_model(
        "swin_umamba_d", in_channels=3, out_channels=4, **{**SMALL, "depths": (1, 2, 2, 1)}
    )
    with pytest.raises(ValueError, match=r"missing: vssm_encoder\.layers\.1\.blocks\.1"):
        load_pretrained(deeper, saved({"model": vmamba()}))
    with pytest.raises(ValueError, match="first_layer: got 'magic'"):
        load_pretrained(deeper, saved({"model": vmamba()}), first_layer="magic")  # type: ignore[arg-type]


def later_without_mlps(gate: bool) -> dict[str, torch.Tensor]:
    """A VMamba between its generations: no gate, or other widths, and no biases."""
    tensors = later_names(vmamba())
    for name, tensor in list(tensors.items()):
        if name.endswith(".conv2d.bias"):
            del tensors[name]
        elif name.endswith(".in_proj.weight") or (gate and name.endswith(".conv2d.weight")):
            tensors[name] = tensor[: tensor.shape[0] // 2]
    return tensors


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("gate", [False, True])
def test_later_vmamba_without_mlps_is_refused_by_name(saved, gate, prefix):
    tensors = {prefix + n: t for n, t in later_without_mlps(gate).items()}
    reason = "it scans 8 channels where blocks have 8" if gate else "its blocks have no gate"
    for model in (small("swin_umamba_d"), small("swin_umamba")):
        with pytest.raises(ValueError, match="it is of a VMamba of neither generation: ") as caught:
            load_pretrained(model, saved({"model": tensors}))
        for part in (reason, "convolutions have no bias", "MLP branches", "supported are VMamba's"):
            assert part in str(caught.value)


def test_encoders_of_other_sizes_are_named(saved, vmamba_names):
    shapes = {n: tuple(s) for n, s in vmamba_names.items()}
    for block in range(9, 27):  # VMamba-Small has 27 blocks where Tiny has 9
        for name, shape in list(shapes.items()):
            if name.startswith("layers.2.blocks.8."):
                shapes[name.replace("blocks.8.", f"blocks.{block}.")] = shape
    path = saved({"model": {n: torch.zeros(1).expand(s) for n, s in shapes.items()}})
    with pytest.raises(ValueError, match="its encoder is of VMamba-Small, dims=") as caught:
        create_model("swin_umamba", in_channels=1, out_channels=2, pretrained=path)
    fits = "the model's of VMamba-Tiny, dims=(96, 192, 384, 768), depths=(2, 2, 9, 2), d_state=16"
    assert fits in str(caught.value)
    assert "create_model(..., depths=(2, 2, 27, 2))" in str(caught.value)
    with pytest.raises(ValueError, match=r"create_model\(\.\.\., dims=.*, d_state=4\)"):
        load_pretrained(
            create_model("swin_umamba", in_channels=1, out_channels=2), saved({"model": vmamba()})
        )


def test_create_model_takes_originals(saved):
    tensors = vmamba()
    model = create_model(
        "swin_umamba_d",
        in_channels=1,
        out_channels=2,
        pretrained=saved({"model": tensors}),
        **SMALL,
    )
    assert_encoder(model, tensors, but=("patch_embed.proj.weight",))


@pytest.mark.parametrize("converted", [False, True])
def test_training_starts_from_originals_and_converted_files(saved, tmp_path, converted):
    tensors = vmamba()
    path = saved({"model": tensors})
    if converted:
        convert(path, tmp_path / "w.safetensors")
        path = tmp_path / "w.safetensors"
    config = TrainConfig(
        model="swin_umamba_d", in_channels=3, num_classes=2, pretrained=str(path),
        model_options=SMALL,
    )  # fmt: skip
    assert_encoder(build_model(config, pretrained=True), tensors)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged or not a weights file"):
        build_model(config, pretrained=True)


def test_the_account_as_json(saved):
    report = load_pretrained(small("swin_umamba"), saved({"model": vmamba()}))
    found = json.loads(report.to_json())
    assert found["coverage"] == 1
    assert found["counts"]["skipped"] == 5
    assert len(found["tensors"]) == len(vmamba())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "converted"),
    [("SwinUMamba", False), ("SwinUMamba_v1", True), ("SwinUMambaD", True)],
)
def test_logits_after_loading_are_the_releases(name, converted, rule, tmp_path):
    """The release's checkpoint at full size, as nnU-Net writes it; as it is or converted."""
    with np.load(FIXTURES / f"{name}_1x1x64x64.npz") as golden:
        meta, expected = json.loads(str(golden["meta"])), golden["out0"]
    shapes = json.loads((FIXTURES / f"{name}_state_dict.json").read_text())
    state = rule.state({n: tuple(s) for n, s in shapes.items()}, meta["salt"])
    tensors = {f"module.{n}": torch.from_numpy(t) for n, t in state.items()}
    torch.save({"network_weights": tensors, "init_args": {}}, tmp_path / "final.pth")
    path = tmp_path / "final.pth"
    if converted:
        result = CliRunner().invoke(app, ["convert", str(path), str(tmp_path / "w.safetensors")])
        assert result.exit_code == 0, result.output
        path = tmp_path / "w.safetensors"
    ours = {"SwinUMambaD": "swin_umamba_d", "SwinUMamba_v1": "swin_umamba_v1"}
    model = create_model(
        ours.get(name, "swin_umamba"), in_channels=1, out_channels=14, pretrained=path,
        deep_supervision=False,
    )  # fmt: skip
    x = torch.from_numpy(rule.image(tuple(meta["input"]), meta["seed"]))
    with torch.no_grad():
        out = model.eval()(x).numpy()
    assert np.linalg.norm(out - expected) <= 1e-4 * np.linalg.norm(expected)


def test_the_published_vmamba_fits_both_models(vmamba_names, tmp_path):
    """Names and shapes of the real checkpoint; values are zeros."""
    tensors = {
        name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in vmamba_names.items()
    }
    save_file(tensors, tmp_path / "vmamba.safetensors")
    model = create_model("swin_umamba_d", in_channels=3, out_channels=2)
    report = load_pretrained(model, tmp_path / "vmamba.safetensors")
    assert report.counts() == {RENAMED: len(tensors) - 4, SKIPPED: 4}
