"""Every layer's forward runs: hooks, pruning, parametrizations and adapters work."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from model_cases import model_cases
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

import swin_umamba_ops as ops
from swin_umamba.models import SegmentationModel
from swin_umamba.models.flops import Flops, count_flops
from swin_umamba.models.fused import Conv3x3, DepthwiseConv2d, LayerNorm, Mlp

Build = Callable[..., SegmentationModel]
Image = Callable[..., Tensor]
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def _unused(model: SegmentationModel) -> set[nn.Module]:
    """What the first version holds and never runs, and lists, which have no forward."""
    lists = {m for m in model.modules() if isinstance(m, nn.ModuleList)}
    stages = getattr(model, "used_stages", None)
    if stages is None:
        return lists
    encoder = model.vssm_encoder
    beyond = [part for i in range(stages, len(encoder.layers)) for part in encoder.parts(i)]
    return lists | {m for part in beyond for m in part.modules()}


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    return torch.cat([t.flatten() for t in (out if isinstance(out, list) else [out])])


@pytest.fixture
def x(image: Image) -> Tensor:
    return image(1, 2, 32, 32)


@pytest.mark.parametrize("name", model_cases())
def test_every_forward_runs(name: str, small: Build, x: Tensor) -> None:
    model = small(name)
    seen: set[nn.Module] = set()
    for module in model.modules():
        module.register_forward_hook(lambda module, *_: seen.add(module))
    model(x)
    missed = {path for path, m in model.named_modules() if m not in seen | _unused(model)}
    assert not missed


@pytest.mark.parametrize("name", model_cases())
def test_multiply_adds_of_layers_are_those_that_run(name: str, small: Build, x: Tensor) -> None:
    """torch's own counter only sees operators; the model's rules only see layers."""
    model = small(name, backend="cpu").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, count_flops(model) as counts:
        model(x)
    work = sum(counts.values(), Flops())
    scan = 9 * work.scan_state_steps + work.scan_steps
    assert counter.get_total_flops() == 2 * work.macs + scan


class _Adapter(nn.Module):
    """A layer with a parallel low-rank layer, as in adapters (LoRA): the sum of both."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.beside = copy.deepcopy(layer)
        with torch.no_grad():
            for parameter in self.beside.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.beside(x)
        return out


@pytest.mark.parametrize("name", model_cases())
def test_adapters_take_the_place_of_layers(name: str, small: Build, x: Tensor) -> None:
    model = small(name).eval()
    unused = _unused(model)
    expected = _logits(model, x)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, LAYERS) and layer not in unused:
            model.set_submodule(path, _Adapter(layer))
    out = _logits(model, x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    out.square().sum().backward()
    adapters = [m for m in model.modules() if isinstance(m, _Adapter)]
    assert len(adapters) > 20
    for adapter in adapters:
        assert adapter.beside.weight.grad.any()


@pytest.mark.parametrize("name", model_cases())
def test_pruned_weights_are_used(name: str, small: Build, x: Tensor) -> None:
    model = small(name).eval()
    expected = copy.deepcopy(model)
    for layer, plain in zip(model.modules(), expected.modules(), strict=True):
        if isinstance(layer, LAYERS):
            prune.l1_unstructured(layer, "weight", amount=0.5)
            plain.weight.data.mul_(layer.weight_mask)
    torch.testing.assert_close(_logits(model, x), _logits(expected, x))


@pytest.mark.parametrize("name", model_cases())
def test_parametrized_weights_are_used(name: str, small: Build, x: Tensor) -> None:
    model = small(name).eval()
    expected = copy.deepcopy(model)
    for layer, plain in zip(list(model.modules()), expected.modules(), strict=True):
        if isinstance(layer, LAYERS):
            parametrizations.spectral_norm(layer)
            layer.eval()
            plain.weight.data.copy_(layer.weight)
    torch.testing.assert_close(_logits(model, x), _logits(expected, x))


def test_linear_layers_quantize(small: Build, x: Tensor) -> None:
    quantization = pytest.importorskip("torch.ao.quantization")
    model = small("swin_umamba_d").eval()
    quantized = quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, torch.qint8)
    assert not any(type(m) is nn.Linear for m in quantized.modules())
    with torch.no_grad():
        exact, out = _logits(model, x), _logits(quantized, x)
    assert 0 < (out - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("name", model_cases())
def test_copies_and_pickles_are_the_model(name: str, small: Build, x: Tensor) -> None:
    model = small(name).eval()
    whole = io.BytesIO()
    torch.save(model, whole)
    whole.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(whole, weights_only=False),
    ):
        assert torch.equal(_logits(other, x), _logits(model, x))
        assert other.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", model_cases())
@pytest.mark.parametrize("channels", [1, 3])
def test_no_images_give_no_logits(name: str, channels: int, small: Build, image: Image) -> None:
    model = small(name, in_channels=channels)
    outputs = model(image(0, channels, 40, 33).requires_grad_())
    assert [tuple(out.shape[:2]) for out in outputs] == [(0, 3)] * len(model.scales)
    assert outputs[0].shape[2:] == (40, 33)
    sum(out.sum() for out in outputs).backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_alone_a_layer_is_pytorchs(image: Image) -> None:
    maps = image(2, 6, 5, 7)
    conv, depthwise, norm = Conv3x3(6, 4), DepthwiseConv2d(6, 3), LayerNorm(7)
    torch.testing.assert_close(conv(maps), F.conv2d(maps, conv.weight, padding=1))
    torch.testing.assert_close(
        depthwise(maps), F.conv2d(maps, depthwise.weight, depthwise.bias, padding=1, groups=6)
    )
    torch.testing.assert_close(norm(maps), F.layer_norm(maps, (7,), norm.weight, norm.bias))
    torch.testing.assert_close(depthwise(maps, silu=True), F.silu(depthwise(maps)))
    torch.testing.assert_close(
        conv(maps, norm_slope=0.1), conv(F.leaky_relu(F.instance_norm(maps), 0.1))
    )
    torch.testing.assert_close(norm(maps, maps), norm(maps) * F.silu(maps))


def test_an_mlp_is_one_op_until_somebody_looks_into_it(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fused = ops.mlp_gelu
    monkeypatch.setattr(ops, "mlp_gelu", lambda *a, **k: calls.append(1) or fused(*a, **k))
    torch.manual_seed(0)
    mlp, x = Mlp(6, 10), image(2, 5, 6)
    expected = F.linear(F.gelu(mlp.fc1(x)), mlp.fc2.weight, mlp.fc2.bias)
    torch.testing.assert_close(mlp(x), expected)
    assert len(calls) == 1
    for register in ("register_forward_hook", "register_forward_pre_hook"):
        seen: list[nn.Module] = []
        handle = getattr(mlp.fc2, register)(lambda module, *_, seen=seen: seen.append(module))
        torch.testing.assert_close(mlp(x), expected)
        assert seen == [mlp.fc2]
        handle.remove()
    assert len(calls) == 1
    mlp.fc1 = _Adapter(mlp.fc1)
    torch.testing.assert_close(mlp(x), expected)
    assert len(calls) == 1
