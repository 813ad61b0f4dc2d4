"""Checkpoints of VMamba's second generation: recognized by content, loaded whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import MODELS_OF_SECOND, SECOND
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner
from weights_cases import SMALL, vmamba, vmamba_second

from swin_umamba import create_model
from swin_umamba.cli import app
from swin_umamba.models import create_encoder, encoder_names
from swin_umamba.weights import convert, load_pretrained, load_weights, read_config, save_weights
from swin_umamba.weights.architecture import Architecture
from swin_umamba.weights.formats import KINDS, recognise
from swin_umamba.weights.report import ADAPTED, LOADED, SKIPPED

FIXTURES = Path(__file__).parents[1] / "fixtures"
PUBLISHED = [name for name in encoder_names() if "v2" in name]
SIZES = {name: SMALL[name] for name in ("dims", "depths")}
each_model = pytest.mark.parametrize("name", MODELS_OF_SECOND)
Saved = Callable[..., Path]


def second(name: str, seed: int = 0, **options: Any) -> Any:
    """A small model of that name with an encoder of the second generation."""
    torch.manual_seed(seed)
    given = {"in_channels": 3, "out_channels": 4, "encoder": SECOND, **SIZES, **options}
    return create_model(name, **given)


@cache
def published(name: str) -> dict[str, torch.Tensor]:
    """The published file's tensors of that encoder: names and shapes, of one value each."""
    with FakeTensorMode():
        encoder = create_encoder(name)
    width = encoder.channels[-1]
    shapes = {n: tuple(t.shape) for n, t in encoder.state_dict().items()}
    shapes |= {f"classifier.norm.{n}": (width,) for n in ("weight", "bias")}
    shapes |= {"classifier.head.weight": (1000, width), "classifier.head.bias": (1000,)}
    return {n: torch.zeros(1).expand(shape) for n, shape in shapes.items()}


@pytest.mark.parametrize("name", ["vmamba_v2_tiny_s1l8", "vmamba_v2_tiny_s2l5"])
def test_the_rule_for_the_six_files_gives_the_two_that_are_known(name: str) -> None:
    known = json.loads((FIXTURES / f"{name}_state_dict.json").read_text())
    assert {n: list(t.shape) for n, t in published(name).items()} == known


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("key", ["model", "model_ema"])
def test_each_of_the_six_is_told_by_its_content(name: str, key: str) -> None:
    tensors = published(name)
    found = recognise({key: tensors, "epoch": 3}, ema=key == "model_ema")
    architecture = Architecture.of(found.tensors)
    assert found.kind == KINDS["vmamba_v2"]
    assert architecture.encoder == name
    assert architecture.options() == {"encoder": name}
    assert str(architecture).startswith(f"{name}, dims=")
    assert len(found.skipped) == 4
    assert {f"vssm_encoder.{n}" for n in tensors if "classifier" not in n} == found.tensors.keys()


PAIRS = [
    ("vmamba_v2_tiny_s1l8", "vmamba_v2_base_s1l20"),
    ("vmamba_v2_tiny_s1l8", "vmamba_v2_tiny_s2l5"),
    ("vmamba_v2_small_s1l20", "vmamba_v2_tiny_s1l8"),
    ("vmamba_v2_small_s2l15", "vmamba_v2_small_s1l20"),
    ("vmamba_v2_tiny_s1l8", "vmamba_tiny"),
]


@pytest.mark.parametrize(("held", "wanted"), PAIRS)
def test_wrong_pairs_are_refused_by_name(held: str, wanted: str, saved: Saved) -> None:
    path = saved({"model": published(held)})
    with pytest.raises(ValueError, match="its encoder is of") as caught, FakeTensorMode():
        create_model(
            "swin_umamba_d", in_channels=3, out_channels=2, encoder=wanted, pretrained=path
        )
    said = str(caught.value)
    model = "VMamba-Tiny" if wanted == "vmamba_tiny" else wanted
    assert f"its encoder is of {held}, " in said
    assert f"the model's of {model}, " in said
    assert said.endswith(f"create_model(..., encoder={held!r})")


def test_the_first_generation_is_refused_by_the_second(saved: Saved) -> None:
    path = saved({"model": vmamba()})
    for name in MODELS_OF_SECOND:
        model = second(name)
        before = {n: t.clone() for n, t in model.state_dict().items()}
        with pytest.raises(ValueError, match=r"create_model\(\.\.\., encoder='vmamba_tiny', dims="):
            load_pretrained(model, path)
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with pytest.raises(ValueError, match=r"does not fit ConvVSSMEncoder: .*encoder='vmamba_tiny'"):
        create_encoder(SECOND, pretrained=path, **SIZES)


@each_model
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("converted", [False, True])
def test_the_whole_encoder_is_loaded(
    name: str, channels: int, converted: bool, saved: Saved, tmp_path: Path
) -> None:
    tensors = vmamba_second()
    path = saved({"model": {f"module.{n}": t for n, t in tensors.items()}})
    if converted:
        report = convert(path, tmp_path / "e.safetensors")
        assert report.counts() == {"renamed": len(tensors) - 3, SKIPPED: 3}
        path = tmp_path / "e.safetensors"
    model = second(name, 5, in_channels=channels)
    report = load_pretrained(model, path)
    assert report.coverage == 1
    assert len(report.of(LOADED, "renamed", ADAPTED)) == len(tensors) - 3
    assert len(report.of(ADAPTED)) == (channels != 3)
    for n, tensor in model.vssm_encoder.state_dict().items():
        if n == "patch_embed.0.weight" and channels != 3:
            assert torch.allclose(tensor, tensors[n].sum(1, keepdim=True) / channels)
        else:
            assert torch.equal(tensor, tensors[n]), n


def test_linear_layers_may_lie_as_convolutions(saved: Saved) -> None:
    """As VMamba's code of that time wrote some of its files."""
    tensors = vmamba_second()
    wide = {
        n: t[:, :, None, None] if t.ndim == 2 and ("proj.weight" in n or ".fc" in n) else t
        for n, t in tensors.items()
    }
    assert sum(t.ndim == 4 and t.shape[2:] == (1, 1) for t in wide.values()) == 4 * 5
    encoder = create_encoder(SECOND, pretrained=saved({"model": wide}), **SIZES)
    for n, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, tensors[n]), n


def test_an_encoder_alone_takes_every_file_that_holds_it(saved: Saved, tmp_path: Path) -> None:
    tensors = vmamba_second()
    raw = saved({"model": tensors, "model_ema": vmamba_second(2)}, "raw.pth")
    convert(raw, tmp_path / "e.safetensors")
    whole = second("swin_umamba", 3)
    load_pretrained(whole, raw)
    save_weights(whole, tmp_path / "whole.safetensors")
    for path in (raw, tmp_path / "e.safetensors", tmp_path / "whole.safetensors"):
        encoder = create_encoder(SECOND, 3, path, **SIZES)
        assert encoder.pretrained_report is not None
        assert encoder.pretrained_report.coverage == 1
        assert all(torch.equal(t, tensors[n]) for n, t in encoder.state_dict().items())
    grey = create_encoder(SECOND, 1, raw, **SIZES)
    assert torch.allclose(grey.patch_embed[0].weight, tensors["patch_embed.0.weight"].sum(1, True))
    first = create_encoder("vmamba_tiny", 3, saved({"model": vmamba()}), **SMALL)
    assert torch.equal(first.patch_embed.proj.weight, vmamba()["patch_embed.proj.weight"])


@each_model
@pytest.mark.parametrize("blocks", [None, "vmamba"])
def test_a_whole_model_says_how_to_build_it(
    name: str, blocks: str | None, saved: Saved, tmp_path: Path
) -> None:
    options = {} if blocks is None or name == "swin_umamba" else {"decoder_blocks": blocks}
    model = second(name, **options)
    source = saved({"network_weights": dict(model.state_dict())})
    out = tmp_path / "w.safetensors"
    convert(source, out)
    config = read_config(out)
    assert config["encoder"] == SECOND
    rebuilt = create_model(**config)
    load_weights(rebuilt, out)
    assert all(torch.equal(t, rebuilt.state_dict()[n]) for n, t in model.state_dict().items())
    with pytest.raises(ValueError, match=r"the release has no swin_umamba.* second generation"):
        convert(source, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


def test_the_first_generation_with_the_seconds_decoder(saved: Saved, tmp_path: Path) -> None:
    sizes = {"in_channels": 1, "out_channels": 2, "dims": (8, 16), "depths": (1, 1)}
    model = create_model("swin_umamba_d", decoder_blocks="vmamba_v2", **sizes)
    convert(saved(dict(model.state_dict())), tmp_path / "w.safetensors")
    config = read_config(tmp_path / "w.safetensors")
    assert config["decoder_blocks"] == "vmamba_v2"
    load_weights(create_model(**config), tmp_path / "w.safetensors")


def test_the_command_accounts_for_every_tensor(saved: Saved, tmp_path: Path) -> None:
    tensors = vmamba_second()
    source, out = saved({"model": tensors}), tmp_path / "e.safetensors"
    result = CliRunner().invoke(app, ["convert", str(source), str(out)])
    assert result.exit_code == 0, result.output
    assert "VMamba's encoder of the second generation" in result.output
    assert "100.0 % of the tensors" in result.output
    refused = CliRunner().invoke(app, ["convert", str(source), str(out), "--release-patch-norm"])
    assert refused.exit_code == 1
    assert "release_patch_norm: the release has no encoder of VMamba's second" in refused.output


def test_what_is_lacking_is_named(saved: Saved) -> None:
    tensors = vmamba_second()
    del tensors["layers.1.blocks.0.mlp.fc2.bias"]
    with pytest.raises(ValueError, match=r"1 missing: vssm_encoder\.layers\.1\..*mlp\.fc2"):
        load_pretrained(second("swin_umamba_d"), saved({"model": tensors}))


HOSTILE = {
    "scalars": lambda t: {n: torch.zeros(()) for n in t},
    "no channels": lambda t: {n: torch.zeros([0] * v.ndim) for n, v in t.items()},
    "one axis too few": lambda t: {n: v.flatten() if v.ndim > 1 else v for n, v in t.items()},
    "three times the channels": lambda t: {
        n: v.repeat(1, 3) if n.endswith("op.out_proj.weight") else v for n, v in t.items()
    },
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_is_made_to_mislead_is_an_error(
    change: Callable[..., Any], saved: Saved, tmp_path: Path
) -> None:
    source = saved({"model": change(vmamba_second())})
    with pytest.raises(ValueError, match=r"checkpoint\.pth"):
        create_encoder(SECOND, pretrained=source, **SIZES)
    with pytest.raises(ValueError, match=r"checkpoint\.pth"):
        convert(source, tmp_path / "e.safetensors")
    assert not (tmp_path / "e.safetensors").exists()
