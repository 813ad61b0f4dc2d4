"""Encoders: VMamba's second generation compared with its own code, stand-alone use, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import MODELS_OF_SECOND, SECOND
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_umamba import create_model
from swin_umamba.models import Encoder, create_encoder, encoder_names
from swin_umamba.models.layers import VSSBlock
from swin_umamba.models.vmamba_v2 import MlpVSSBlock

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = ("vmamba_v2_tiny_s1l8", "vmamba_v2_tiny_s2l5")
SMALL: dict[str, Any] = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)}
each_encoder = pytest.mark.parametrize("name", encoder_names())
each_second = pytest.mark.parametrize("name", [n for n in encoder_names() if "v2" in n])


def relative(out: Tensor, expected: Any) -> float:
    reference = torch.as_tensor(expected, dtype=torch.float64)
    return ((out.detach().double() - reference).norm() / reference.norm()).item()


def loss_of(maps: list[Tensor], rule: Any, seed: int) -> Tensor:
    """As the golden gradients are of."""
    g = [torch.from_numpy(rule.image(tuple(m.shape), seed + i)) for i, m in enumerate(maps)]
    return sum((m * w.to(m)).sum() for m, w in zip(maps, g, strict=True))


def names_of(name: str) -> dict[str, tuple[int, ...]]:
    """Of VMamba's checkpoint, without the classifier."""
    shapes = json.loads((FIXTURES / f"{name}_state_dict.json").read_text())
    return {n: tuple(s) for n, s in shapes.items() if not n.startswith("classifier.")}


@pytest.mark.parametrize("name", GOLDEN)
def test_names_and_shapes_are_vmambas(name: str) -> None:
    with FakeTensorMode():
        state = create_encoder(name).state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == names_of(name)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", GOLDEN)
def test_maps_and_gradients_are_vmambas(
    name: str, device: str, golden: Any, rule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    expected, meta = golden(f"{name}.npz")
    encoder = create_encoder(name).to(device).eval()
    state = rule.state(names_of(name), meta["salt"])
    encoder.load_state_dict({n: torch.from_numpy(t) for n, t in state.items()})
    x = torch.from_numpy(rule.image(tuple(meta["shape"]), meta["seed"])).to(device).requires_grad_()
    maps = encoder(x)
    loss_of(maps, rule, meta["seed"] + 100).backward()
    assert len(maps) == 4
    for i, found in enumerate(maps):
        assert found.shape == expected[f"stage{i}"].shape
        assert relative(found.cpu(), expected[f"stage{i}"]) <= 1e-4
    assert relative(x.grad.cpu(), expected["grad_x"]) <= 1e-4
    norms = json.loads(str(expected["grad_norms"]))
    found_norms = {n: p.grad.norm().item() for n, p in encoder.named_parameters()}
    assert found_norms == pytest.approx(norms, rel=1e-4)


@each_second
def test_float64_is_our_references(name: str, rule: Any, image: Any) -> None:
    results = []
    for backend in ("auto", "reference"):
        torch.manual_seed(0)
        encoder = create_encoder(name, backend=backend, drop_path_rate=0.0, **SMALL).double()
        x = image(1, 3, 40, 33, dtype=torch.float64).requires_grad_()
        maps = encoder(x)
        loss_of(maps, rule, 3).backward()
        assert all(p.grad is not None for p in encoder.parameters())
        results.append([*maps, x.grad, *(p.grad for p in encoder.parameters())])
    for found, expected in zip(*results, strict=True):
        assert relative(found, expected.detach()) <= 1e-9


@each_encoder
def test_maps_have_the_channels_and_reductions_that_are_told(name: str, image: Any) -> None:
    encoder = create_encoder(name, 2, **SMALL).eval()
    assert isinstance(encoder, Encoder)
    assert encoder.channels == SMALL["dims"]
    assert encoder.reductions == (4, 8, 16, 32)
    assert encoder.stride == 32
    with torch.no_grad():
        maps = encoder(image(2, 2, 64, 96))
        assert [tuple(m.shape) for m in maps] == [
            (2, c, 64 // r, 96 // r)
            for c, r in zip(encoder.channels, encoder.reductions, strict=True)
        ]
        assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
        if name == "vmamba_tiny":
            with pytest.raises(ValueError, match=r"got shape \(1, 2, 33, 64\), .* multiples of 32"):
                encoder(image(1, 2, 33, 64))
        else:
            sizes = [tuple(m.shape[2:]) for m in encoder(image(1, 2, 33, 50))]
            assert sizes == [(-(-33 // r), -(-50 // r)) for r in encoder.reductions]


@each_encoder
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype, image: Any) -> None:
    encoder = create_encoder(name, **SMALL).eval()
    x = image(1, 3, 32, 32)
    with torch.no_grad():
        exact = encoder(x)
        with torch.autocast("cpu", dtype):
            cast = encoder(x)
        half = encoder.to(dtype)(x.to(dtype))
    for found, converted, expected in zip(cast, half, exact, strict=True):
        assert converted.dtype == dtype
        assert relative(found, expected) < 0.05
        assert relative(converted, expected) < 0.05


@each_encoder
def test_published_sizes(name: str) -> None:
    """Millions of parameters, the classifier's included, as VMamba's table has them."""
    published = {
        "vmamba_tiny": 23, "vmamba_v2_tiny_s1l8": 30, "vmamba_v2_tiny_s2l5": 31,
        "vmamba_v2_small_s1l20": 49, "vmamba_v2_small_s2l15": 50, "vmamba_v2_base_s1l20": 87,
        "vmamba_v2_base_s2l15": 89,
    }  # fmt: skip
    with FakeTensorMode():
        encoder = create_encoder(name)
    width = encoder.channels[-1]
    count = sum(p.numel() for p in encoder.parameters()) + 2 * width + 1000 * (width + 1)
    assert round(count / 1e6) == published[name]


@each_encoder
def test_every_kind_trains_and_takes_its_arguments(name: str, image: Any) -> None:
    encoder = create_encoder(name, 1, d_state=3, drop_path_rate=0.5, **SMALL)
    states = {p.shape[1] for n, p in encoder.named_parameters() if n.endswith("A_logs")}
    assert states == {3}
    sum(m.square().mean() for m in encoder(image(2, 1, 32, 32))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder: got 'resnet', expected one of vmamba_tiny, "):
        create_encoder("resnet")
    with pytest.raises(ValueError, match="in_channels: got 0"):
        create_encoder(SECOND, 0)
    sizes = {"in_channels": 1, "out_channels": 2}
    with pytest.raises(ValueError, match=r"encoder: got \['x'\], expected one of vmamba_tiny"):
        create_model("swin_umamba", encoder=["x"], **sizes)
    with pytest.raises(ValueError, match=rf"encoder: got '{SECOND}'.*with swin_umamba_v1"):
        create_model("swin_umamba_v1", encoder=SECOND, **sizes)
    with pytest.raises(ValueError, match=rf"patch_size: got 2, expected 4 with encoder '{SECOND}'"):
        create_model("swin_umamba_d", encoder=SECOND, patch_size=2, **sizes)
    with pytest.raises(ValueError, match="stem_dim: got 7, expected 48"):
        create_model("swin_umamba", encoder=SECOND, stem_dim=7, **sizes)
    with pytest.raises(ValueError, match="decoder_blocks: got 'x', expected one of vmamba, vmamba"):
        create_model("swin_umamba_d", decoder_blocks="x", **sizes)


@pytest.mark.parametrize("encoder", ["vmamba_tiny", SECOND])
@pytest.mark.parametrize("blocks", [None, "vmamba", "vmamba_v2"])
def test_blocks_of_the_decoder(encoder: str, blocks: str | None, image: Any) -> None:
    model = create_model(
        "swin_umamba_d", in_channels=1, out_channels=2, encoder=encoder, decoder_blocks=blocks,
        dims=(8, 16), depths=(1, 1),
    )  # fmt: skip
    expected = blocks or ("vmamba" if encoder == "vmamba_tiny" else "vmamba_v2")
    found = {type(block) for stage in model.decoder.stages for block in stage.blocks}
    assert found == {VSSBlock if expected == "vmamba" else MlpVSSBlock}
    states = {p.shape[1] for n, p in model.decoder.named_parameters() if n.endswith("A_logs")}
    assert states == {16 if expected == "vmamba" else 1}
    assert [tuple(out.shape) for out in model(image(1, 1, 16, 16))] == [
        (1, 2, 16, 16), (1, 2, 4, 4)
    ]  # fmt: skip


@pytest.mark.parametrize("name", MODELS_OF_SECOND)
def test_the_second_generation_needs_no_stem(name: str) -> None:
    with FakeTensorMode():
        state = create_model(name, in_channels=3, out_channels=2, encoder=SECOND).state_dict()
    prefix = "vssm_encoder."
    encoder = {n.removeprefix(prefix): tuple(t.shape) for n, t in state.items() if prefix in n}
    assert encoder == names_of(SECOND)
    assert not any(n.startswith("stem.") for n in state)
