"""mamba-ssm's blocks and layer, and small modules with the call patterns of models that use it."""

from __future__ import annotations

import functools
import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import swin_umamba_ops as ops
from swin_umamba_ops import mamba_ssm

B_, N_ = 2, 8


# ---- the block


def _block(variable_B: bool, variable_C: bool, *, is_complex: bool = False) -> dict[str, Any]:
    D, R, L, parts = 6, 2, 11, 2 if is_complex else 1
    g = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()

    def constant() -> Tensor:
        values = normal(D, N_)
        return torch.complex(values, normal(D, N_)) if is_complex else values

    return {
        "xz": normal(B_, 2 * D, L), "conv1d_weight": normal(D, 1, 3), "conv1d_bias": normal(D),
        "x_proj_weight": normal(R + (variable_B + variable_C) * N_ * parts, D),
        "delta_proj_weight": normal(D, R), "out_proj_weight": normal(5, D),
        "out_proj_bias": normal(5), "A": -torch.exp(constant()),
        "B": None if variable_B else constant(), "C": None if variable_C else constant(),
        "D": normal(D), "delta_bias": normal(D),
    }  # fmt: skip


def _block_by_hand(t: dict[str, Any]) -> Tensor:
    """The block as Mamba's paper has it, one layer after the other."""
    x, z = t["xz"].chunk(2, dim=1)
    length = x.shape[-1]
    x = F.silu(F.conv1d(x, t["conv1d_weight"], t["conv1d_bias"], padding=2, groups=6)[..., :length])
    projected = torch.einsum("rd,bdl->brl", t["x_proj_weight"], x)
    delta = torch.einsum("dr,brl->bdl", t["delta_proj_weight"], projected[:, :2])
    A, rest = t["A"], projected[:, 2:]
    if A.is_complex():
        parts = rest.unflatten(1, (-1, 2))
        rest = torch.complex(parts[:, :, 0], parts[:, :, 1])
    B = rest[:, :N_] if t["B"] is None else t["B"]
    C = rest[:, -N_:] if t["C"] is None else t["C"]
    dt = F.softplus(delta + t["delta_bias"][:, None])
    h, ys = torch.zeros(B_, 6, N_, dtype=A.dtype), []
    for i in range(length):
        b, c = (m[:, None, :, i] if m.dim() == 3 else m for m in (B, C))
        h = torch.exp(dt[..., i, None] * A) * h + (dt * x)[..., i, None] * b
        y = (h * c).sum(-1)
        ys.append(2 * y.real if y.is_complex() else y)
    y = (torch.stack(ys, -1) + t["D"][:, None] * x) * F.silu(z)
    return F.linear(y.transpose(1, 2), t["out_proj_weight"], t["out_proj_bias"])


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("variable_C", [False, True])
@pytest.mark.parametrize("variable_B", [False, True])
def test_the_block(variable_B: bool, variable_C: bool, is_complex: bool) -> None:
    t = _block(variable_B, variable_C, is_complex=is_complex)
    expected = _block_by_hand(t)
    leaves = [v for v in t.values() if v is not None and v.is_leaf]
    gradients = torch.autograd.grad(expected.sum(), leaves, retain_graph=True)
    out = mamba_ssm.mamba_inner_fn(**t, delta_softplus=True)
    torch.testing.assert_close(out, expected)
    for a, b in zip(torch.autograd.grad(out.sum(), leaves), gradients, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(mamba_ssm.mamba_inner_ref(**t), expected)
    weight, bias = t.pop("out_proj_weight"), t.pop("out_proj_bias")
    inner = mamba_ssm.mamba_inner_fn_no_out_proj(**t)
    torch.testing.assert_close(F.linear(inner.transpose(1, 2), weight, bias), expected)


def test_the_block_of_both_ways() -> None:
    """Vim's first: one set of projections, scanned forwards and backwards."""
    t = _block(True, True)
    A_b = 2 * t["A"]
    out = mamba_ssm.bimamba_inner_fn(**t, A_b=A_b)
    x, z = t["xz"].chunk(2, dim=1)
    x = mamba_ssm.causal_conv1d_fn(x, t["conv1d_weight"][:, 0], t["conv1d_bias"], activation="silu")
    projected = torch.einsum("rd,bdl->brl", t["x_proj_weight"], x)
    delta = torch.einsum("dr,brl->bdl", t["delta_proj_weight"], projected[:, :2])
    B, C = projected[:, 2 : 2 + N_], projected[:, 2 + N_ :]
    options = {"D": t["D"], "delta_bias": t["delta_bias"], "delta_softplus": True}
    y = ops.selective_scan(x, delta, t["A"], B, C, z=z, **options)
    turned = [v.flip(-1) for v in (x, delta, B, C, z)]
    x, delta, B, C, z = turned
    y = y + ops.selective_scan(x, delta, A_b, B, C, z=z, **options).flip(-1)
    expected = F.linear(y.transpose(1, 2), t["out_proj_weight"], t["out_proj_bias"])
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("both_ways", [False, True])
def test_packed_sequences_in_the_block(both_ways: bool) -> None:
    t = _block(True, True)
    block: Any = mamba_ssm.mamba_inner_fn
    if both_ways:
        block = functools.partial(mamba_ssm.bimamba_inner_fn, A_b=2 * t["A"])
    ends, index = torch.tensor([0, 4, 11]), torch.tensor([0] * 4 + [1] * 7).expand(B_, -1)
    out = block(**t, cu_seqlens=ends, seq_idx=index)
    for a, b in ((0, 4), (4, 11)):
        alone = block(**(t | {"xz": t["xz"][..., a:b]}))
        torch.testing.assert_close(out[:, a:b], alone)


def test_norms_in_the_block_and_autocast() -> None:
    t = _block(True, True)
    weights = {n: torch.ones(N_, dtype=torch.float64) for n in ("b_rms_weight", "c_rms_weight")}
    weights["dt_rms_weight"] = torch.ones(2, dtype=torch.float64)
    normed = mamba_ssm.mamba_inner_fn(**t, **weights)
    assert not torch.allclose(normed, mamba_ssm.mamba_inner_fn(**t))
    single = {n: v if v is None else v.detach().float() for n, v in t.items()}
    with torch.autocast("cpu", torch.bfloat16):
        out = mamba_ssm.mamba_inner_fn(**single)
    assert out.dtype == torch.bfloat16


# ---- the layer, and the call patterns of models


def test_the_layer_generates_what_it_computes_at_once() -> None:
    torch.manual_seed(0)
    layer = mamba_ssm.Mamba(8, d_state=4, layer_idx=0).double()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    expected = layer(x)
    for prompt in (1, 2, 5):
        params = SimpleNamespace(seqlen_offset=0, key_value_memory_dict={})
        with torch.no_grad():
            outs = [layer(x[:, :prompt], params)]
            for i in range(prompt, 7):
                params.seqlen_offset = i
                outs.append(layer(x[:, i : i + 1], params))
        torch.testing.assert_close(torch.cat(outs, 1), expected)
    with pytest.raises(ValueError, match="layer_idx is None"):
        mamba_ssm.Mamba(8)(x, params)


def test_the_layer_has_the_parameters_of_mamba_ssms() -> None:
    layer = mamba_ssm.Mamba(32, d_state=16, d_conv=4, expand=2)
    assert {name: tuple(p.shape) for name, p in layer.state_dict().items()} == {
        "A_log": (64, 16), "D": (64,), "in_proj.weight": (128, 32), "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,), "x_proj.weight": (34, 64), "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,), "out_proj.weight": (32, 64),
    }  # fmt: skip


@pytest.fixture
def _as_mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "mamba_ssm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mamba_ssm", mamba_ssm)


@pytest.mark.usefixtures("_as_mamba_ssm")
def test_people_import_it_as_mamba_ssm() -> None:
    """U-Mamba and SegMamba, VM-UNet, Vim, and mamba-ssm's own generation."""
    for module, names in {
        "mamba_ssm": ["Mamba", "selective_scan_fn", "mamba_inner_fn"],
        "mamba_ssm.modules.mamba_simple": ["Mamba"],
        "mamba_ssm.ops.selective_scan_interface": [
            "selective_scan_fn", "selective_scan_ref", "mamba_inner_fn", "bimamba_inner_fn",
            "mamba_inner_fn_no_out_proj",
        ],
        "mamba_ssm.ops.triton.selective_state_update": ["selective_state_update"],
    }.items():  # fmt: skip
        found = importlib.import_module(module)
        assert all(callable(getattr(found, name)) for name in names)


class _UMambaBlock(nn.Module):
    """U-Mamba's: a feature map as one sequence through a Mamba layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba = importlib.import_module("mamba_ssm").Mamba(
            d_model=dim, d_state=16, d_conv=4, expand=2
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2).transpose(-1, -2)
        out: Tensor = self.mamba(self.norm(flat))
        return out.transpose(-1, -2).reshape(x.shape)


class _ThreeWays(nn.Module):
    """Vim's bimamba v2 and SegMamba's v3: forwards, backwards and across slices, each with its own
    parameters, in one layer."""

    def __init__(self, dim: int, slices: int) -> None:
        super().__init__()
        self.slices = slices
        self.ways = nn.ModuleList(mamba_ssm.Mamba(dim) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        first: Any = self.ways[0]
        xz = (first.in_proj.weight @ x.flatten(0, 1).t()).unflatten(1, x.shape[:2]).transpose(0, 1)
        across = torch.stack(xz.chunk(self.slices, dim=-1), dim=-1).flatten(-2)
        outs = []
        for way, sequence in zip(self.ways, (xz, xz.flip(-1), across), strict=True):
            m: Any = way
            outs.append(
                interface.mamba_inner_fn_no_out_proj(
                    sequence, m.conv1d.weight, m.conv1d.bias, m.x_proj.weight, m.dt_proj.weight,
                    -torch.exp(m.A_log.float()), None, None, m.D.float(),
                    delta_bias=m.dt_proj.bias.float(), delta_softplus=True,
                )
            )  # fmt: skip
        length = x.shape[1] // self.slices
        back = outs[2].unflatten(-1, (length, self.slices)).transpose(-1, -2).flatten(-2)
        return first.out_proj((outs[0] + outs[1].flip(-1) + back).transpose(1, 2))


class _VMUNetScan(nn.Module):
    """VM-UNet's SS2D core: four directions as groups of one scan."""

    def forward(self, xs: Tensor, dts: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor) -> Tensor:
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        D, bias = torch.ones(A.shape[0]), torch.zeros(A.shape[0])
        out: Tensor = interface.selective_scan_fn(
            xs, dts, A, Bs, Cs, D, z=None, delta_bias=bias, delta_softplus=True,
            return_last_state=False,
        )  # fmt: skip
        assert out.dtype == torch.float32
        return out


@pytest.mark.usefixtures("_as_mamba_ssm")
def test_modules_with_the_call_patterns_of_models_train() -> None:
    torch.manual_seed(0)
    scan = torch.randn(2, 4 * 3, 10), torch.rand(2, 4 * 3, 10), -torch.rand(12, 4)
    maps = torch.randn(2, 2, 4, 4, 10)
    for module, inputs in (
        (_UMambaBlock(8), (torch.randn(2, 8, 3, 4),)),
        (_ThreeWays(8, 2), (torch.randn(2, 6, 8),)),
        (_VMUNetScan(), (*scan, *maps)),
    ):
        leaves = [t.requires_grad_() for t in inputs]
        out = module(*leaves)
        out.square().mean().backward()
        for t in (*leaves, *(p for n, p in module.named_parameters() if not _unused(n))):
            assert t.grad is not None
            assert torch.isfinite(t.grad).all()


def _unused(name: str) -> bool:
    """In _ThreeWays the first way's projections serve all."""
    _, way, *layer = [*name.split("."), "", ""][:3]
    return way in ("1", "2") and layer in (["in_proj"], ["out_proj"])
