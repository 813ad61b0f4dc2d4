"""The SS2D layer: golden values, initial values, layouts, precision, arguments."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import swin_umamba_ops as ops
from swin_umamba import SS2D


def relative_error(out: torch.Tensor, reference: torch.Tensor) -> float:
    return ((out.double() - reference.double()).norm() / reference.double().norm()).item()


@pytest.mark.parametrize("file", ["ss2d_5x7.npz", "ss2d_12x9.npz"])
def test_layer_and_all_gradients_are_the_releases(file, golden, rule):
    expected, meta = golden(file)
    shapes = {k: tuple(v) for k, v in json.loads(str(expected["shapes"])).items()}
    layer = SS2D(meta["d_model"], d_state=meta["d_state"], dt_rank=meta["dt_rank"]).double()
    weights = rule.state(shapes, meta["salt"])
    layer.load_state_dict({k: torch.from_numpy(v).double() for k, v in weights.items()})
    shape = (meta["B"], meta["H"], meta["W"], meta["d_model"])
    x = torch.from_numpy(rule.image(shape, meta["seed"])).double().requires_grad_()
    g = torch.from_numpy(rule.image(shape, meta["seed"] + 1000)).double()

    out = layer(x)
    (out * g).sum().backward()

    results = {"out": out.detach(), "grad.x": x.grad}
    results |= {f"grad.{name}": p.grad for name, p in layer.named_parameters()}
    assert set(results) == {key for key in expected if not key.startswith(("core", "shapes"))}
    for key, value in results.items():
        assert relative_error(value, torch.from_numpy(expected[key])) <= 1e-10, key


def test_initial_values_are_mambas():
    torch.manual_seed(0)
    layer = SS2D(48, d_state=5, dt_min=0.002, dt_max=0.05)
    assert layer.dt_rank == 3
    assert torch.equal(layer.A_logs.exp().round(), torch.arange(1.0, 6.0).expand(4 * 96, 5))
    assert torch.equal(layer.Ds, torch.ones(4 * 96))
    dt = F.softplus(layer.dt_projs_bias.detach())
    assert 0.002 * 0.999 <= dt.min() < 0.0025
    assert 0.045 < dt.max() <= 0.05 * 1.001
    assert dt.log().mean() == pytest.approx(math.log(0.01), abs=0.2)  # log-uniform
    for weight, fan_in in ((layer.x_proj_weight, 96), (layer.dt_projs_weight, 3)):
        assert 0.98 * fan_in**-0.5 < weight.abs().max() <= fan_in**-0.5
        assert weight.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)  # uniform


def test_channels_come_last_without_a_copy(monkeypatch, image):
    layouts = []
    scan = ops.ss2d

    def spy(x, *args, **kwargs):
        layouts.append(x.is_contiguous(memory_format=torch.channels_last))
        return scan(x, *args, **kwargs)

    monkeypatch.setattr(ops, "ss2d", spy)
    out = SS2D(8)(image(2, 6, 5, 8))
    assert layouts == [True]
    assert out.is_contiguous()


def test_strided_input_gives_the_same(image):
    layer = SS2D(8)
    x = image(2, 8, 6, 5).permute(0, 2, 3, 1)
    assert not x.is_contiguous()
    assert torch.equal(layer(x), layer(x.contiguous()))


def test_autocast_normalises_in_float32(monkeypatch, image):
    dtypes = []
    layer_norm = F.layer_norm

    def spy(x, *args):
        out = layer_norm(x, *args)
        dtypes.append((x.dtype, out.dtype))
        return out

    monkeypatch.setattr(F, "layer_norm", spy)
    with torch.autocast("cpu", torch.bfloat16):
        out = SS2D(8)(image(1, 4, 5, 8))
    assert dtypes == [(torch.float32, torch.float32)]
    assert out.dtype == torch.bfloat16


def test_autocast_costs_no_more_than_plain_half_precision(image):
    torch.manual_seed(0)
    layer = SS2D(32)
    x = image(2, 9, 7, 32)
    exact = layer.double()(x.double())
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    half = x.bfloat16()
    weights = {name: p.detach().bfloat16() for name, p in layer.named_parameters()}
    u, z = F.linear(half, weights["in_proj.weight"]).chunk(2, dim=-1)
    conv = F.conv2d(
        u.permute(0, 3, 1, 2), weights["conv2d.weight"], weights["conv2d.bias"], 1, 1, 1, 64
    )
    scan = [layer.x_proj_weight, layer.dt_projs_weight, layer.dt_projs_bias]
    y = ops.ss2d(F.silu(conv), *scan, layer.A_logs, layer.Ds, backend="reference").bfloat16()
    y = F.layer_norm(
        y.permute(0, 2, 3, 1), (64,), weights["out_norm.weight"], weights["out_norm.bias"]
    )
    plain = F.linear(y * F.silu(z), weights["out_proj.weight"])
    assert relative_error(out, exact) <= 2 * relative_error(plain, exact)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_converted_layer_keeps_its_dtype(dtype, image):
    layer = SS2D(8).to(dtype)
    out = layer(image(1, 4, 5, 8).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"d_model": 0}, "d_model: got 0"),
        ({"d_model": 8, "d_state": 0}, "d_state: got 0"),
        ({"d_model": 8, "dt_rank": 0}, "dt_rank: got 0"),
        ({"d_model": 8, "expand": 0}, "expand: got 0"),
        ({"d_model": 8, "d_conv": 4}, "d_conv: got 4, expected an odd"),
        ({"d_model": 8, "dt_min": 0.2}, "dt_min, dt_max: got 0.2, 0.1"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SS2D(**kwargs)


@pytest.mark.parametrize("shape", [(2, 5, 8), (2, 8, 5, 5)])
def test_bad_input(shape, image):
    with pytest.raises(ValueError, match=r"x: got shape .*, expected \(B, H, W, 8\)"):
        SS2D(8)(image(*shape))


def test_unknown_backend_is_refused(image):
    with pytest.raises(ValueError, match="nonsense"):
        SS2D(8, backend="nonsense")(image(1, 4, 4, 8))


def test_results_do_not_depend_on_the_batch(image):
    layer = SS2D(8).double()
    x = image(3, 4, 5, 8, dtype=torch.float64)
    alone = torch.cat([layer(x[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(layer(x).detach(), alone.detach(), rtol=1e-12, atol=1e-14)
