"""--set NAME=VALUE and settings files: converted to the field's type, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swin_umamba.errors import UserError
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.settings import load_settings, parse_setting, parse_settings


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        *((f"augment={word}", False) for word in ("False", "false", "no", "NO", "off", "0")),
        *((f"augment={word}", True) for word in ("True", "yes", "On", "1")),
        *((f"ema={word}", None) for word in ("None", "none", "null", "~")),
        ("ema=0.999", 0.999),
        ("lr=1e-4", 1e-4),
        ("lr=1", 1.0),
        ("iterations=1e3", 1000),
        ("seed= 7 ", 7),
        ("patch_size=[32, 64]", (32, 64)),
        ("patch_size=(32, 64)", (32, 64)),
        ("betas=[0.5, 0]", (0.5, 0.0)),
        ("fold=1", "1"),
        ('fold="1"', "1"),
        ("fold=all", "all"),
        ("pretrained=None", None),
        ("pretrained=a=b.pth", "a=b.pth"),
        ("model=swin_umamba", "swin_umamba"),
        ("amp=off", "off"),
        ("cuda_graph=auto", "auto"),
        ("cuda_graph=no", False),
        ("dataset=no", "no"),
    ],
)
def test_values_are_of_the_field_s_type(pair: str, expected: Any) -> None:
    name = pair.partition("=")[0]
    value = getattr(TrainConfig().changed(parse_settings([pair])), name)
    assert value == expected
    assert type(value) is type(expected)


def test_entries_of_open_fields() -> None:
    pairs = ["model_options.depths=[1, 1]", "model_options.drop_path_rate=0"]
    config = TrainConfig().changed(parse_settings([*pairs, "augmentation.p_gamma=0"]))
    assert config.model_options == {"depths": [1, 1], "drop_path_rate": 0}
    assert config.augmentation == {"p_gamma": 0}
    whole = parse_settings(['augmentation={"p_gamma": 0.5}', "augmentation.blur=(0, 1)"])
    assert TrainConfig().changed(whole).augmentation == {"p_gamma": 0.5, "blur": [0, 1]}
    assert parse_setting("model_options.x", "[True, None]") == [True, None]
    assert parse_setting("model_options.x", "swish") == "swish"


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("augment=maybe", "augment: got 'maybe', expected true or false"),
        ("augment=", "augment: got '', expected true or false"),
        ("cuda_graph=fast", "cuda_graph: got 'fast', expected true or false or auto"),
        ("seed=1.5", "seed: got '1.5', expected a whole number, 0 or above"),
        ("seed=None", "seed: got 'None', expected a whole number"),
        ("workers=many", "workers: got 'many', expected None or a whole number, 0 to 1024"),
        ("lr=1e-4x", "lr: got '1e-4x', expected a number, above 0"),
        ("lr=nan", "lr: got nan, expected a number, above 0"),
        ("lr=1e999", "lr: got inf"),
        ("iterations=1e400", "iterations: got '1e400'"),
        ("iterations=" + "9" * 5000, "iterations: got"),
        ("patch_size=32", "patch_size: got 32, of the wrong type: expected two whole numbers"),
        ("patch_size=[32", "patch_size: got '\\[32'"),
        ("model=swin", "model: got 'swin', expected one of swin_umamba"),
        ("amp=fp8", "amp: got 'fp8', expected one of auto, bf16, fp16, off"),
        ("fold=-1", "fold: got '-1', expected 0, 1, ... or all"),
        ("model_options.wdith=3", "model_options: got wdith, expected some of"),
        ("augmentation.p_gamma=5", "augmentation.p_gamma: got 5, expected 0 to 1"),
        ("augmentation.p_gamma=high", "augmentation.p_gamma: got 'high', expected a number"),
        ("augmentation.blur=[2, 1]", "augmentation.blur: got .*, expected the lower number first"),
        ("augmentation=[1]", r"augmentation: got \[1\], of the wrong type"),
        ("lr.x=1", r"unknown field lr\.x"),
        ("=1", "unknown fields"),
        ("lr", "--set: got 'lr', expected NAME=VALUE"),
    ],
)
def test_what_does_not_fit_names_the_field(pair: str, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        TrainConfig().changed(parse_settings([pair]))


def test_yaml_and_json_give_the_same(tmp_path: Path) -> None:
    text = """
        lr: 1e-4
        ema: 5.0e-1
        augment: no
        patch_size: [32, 64]
        fold: 0
        model_options: {depths: [1, 1], dims: [8, 8]}
        minutes: null
    """
    (tmp_path / "x.yaml").write_text("\n".join(line.strip() for line in text.splitlines()))
    (tmp_path / "x.json").write_text(
        '{"lr": 1e-4, "ema": 0.5, "augment": false, "patch_size": [32, 64], "fold": "0",'
        ' "model_options": {"depths": [1, 1], "dims": [8, 8]}, "minutes": null}'
    )
    found = [TrainConfig().changed(load_settings(tmp_path / f"x.{e}")) for e in ("yaml", "json")]
    assert found[0] == found[1]
    assert found[0].lr == 1e-4
    (tmp_path / "run.json").write_text(found[0].to_json())
    assert TrainConfig().changed(load_settings(tmp_path / "run.json")) == found[0]


@pytest.mark.parametrize(
    "text",
    [
        "lr: [1",
        "a: &a [1, 1]\nb: [*a, *a]",
        "- 1",
        "",
        "lr: .nan",
        "when: 2020-01-01",
        "x: !!python/object/apply:os.system [ls]",
        "[" * 5000,
        "a: \ud83d",
    ],
)
def test_what_is_no_such_file_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"settings\.yml"):
        load_settings(path)


def test_single_entries_keep_the_order_in_which_they_were_given() -> None:
    names = ["dims", "depths", "decoder_depths", "d_state", "drop_path_rate", "patch_size"]
    values = [[8, 16], [1, 1], [1], 2, 0.1, 4]
    given = {f"model_options.{name}": v for name, v in zip(names, values, strict=True)}
    assert list(TrainConfig().changed(given).model_options) == names


@pytest.mark.parametrize("text", ["lr: 1\nlr: 2\n", "model_options: {dims: [4], dims: [8]}\n"])
def test_a_key_twice_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(
        UserError, match=r"x\.yaml cannot be read as YAML: it has the key '\w+' twice"
    ):
        load_settings(tmp_path / "x.yaml")
