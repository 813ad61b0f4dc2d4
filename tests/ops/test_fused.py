"""The fused ops: their Triton kernels and their plain form against float64."""

from __future__ import annotations

import pytest
import torch
from fused_checks import (
    DEVICE,
    DTYPES,
    INTERPRETED,
    Op,
    check,
    conv3x3,
    depthwise_conv_silu,
    error,
    instance_norm_act,
    layer_norm,
    mlp_gelu,
    needs_kernels,
    noise,
    norm_act_conv3x3,
    rounded,
    use_kernels,
    with_gradients,
)
from torch import Tensor

# ---- layer norm


@needs_kernels
@DTYPES
@pytest.mark.parametrize("shape", [(2, 3, 5, 24), (1, 1), (37, 192), (3, 1000)], ids=str)
def test_layer_norm(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter cuts bfloat16 where GPUs round")
    C = shape[-1]
    tensors = {"x": 2 * noise(*shape) + 1, "weight": noise(C, seed=1), "bias": noise(C, seed=2)}
    if C == 1:  # its gradient is nothing but rounding
        tensors["x"] = torch.zeros_like(tensors["x"])
    inputs = rounded(dtype, **tensors)

    def op(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return layer_norm(x, weight, bias, 1e-5)

    check(op, inputs, monkeypatch)


@needs_kernels
@DTYPES
def test_gated_layer_norm(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the SS2D layer: x is float32, the gate and the result are half."""
    shape = (2, 3, 7, 48)
    inputs = rounded(
        dtype, x=3 * noise(*shape), weight=noise(48, seed=1), bias=noise(48, seed=2),
        gate=2 * noise(*shape, seed=3),
    )  # fmt: skip
    inputs["x"] = inputs["x"].float()

    def op(x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor) -> Tensor:
        return layer_norm(x, weight, bias, 1e-5, gate)

    check(op, inputs, monkeypatch)


def test_layer_norm_has_the_dtype_of_autocast_gate_or_x() -> None:
    x, w = noise(2, 8).float(), torch.ones(8)
    assert layer_norm(x, w, w, 1e-5).dtype == torch.float32
    assert layer_norm(x, w, w, 1e-5, gate=x.half()).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer_norm(x, w, w, 1e-5).dtype == torch.bfloat16
        assert layer_norm(x.double(), w, w, 1e-5).dtype == torch.float64


# ---- depthwise convolution


@needs_kernels
@DTYPES
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((2, 5, 7, 24), 3), ((1, 1, 1, 8), 3), ((1, 3, 17, 70), 3), ((2, 9, 1, 3), 1)],
    ids=str,
)
def test_depthwise_conv_silu(
    shape: tuple[int, ...], kernel: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    D = shape[-1]
    inputs = rounded(
        dtype, x=noise(*shape), weight=noise(D, 1, kernel, kernel, seed=1), bias=noise(D, seed=2)
    )
    check(depthwise_conv_silu, inputs, monkeypatch)


@needs_kernels
def test_depthwise_conv_silu_without_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = rounded(torch.float16, x=noise(2, 5, 7, 24), weight=noise(24, 1, 3, 3, seed=1))

    def op(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv_silu(x, weight, None)

    check(op, inputs, monkeypatch)


def test_depthwise_conv_silu_is_the_layers() -> None:
    layer = torch.nn.Conv2d(6, 6, 5, padding=2, groups=6).double()
    x = noise(2, 6, 7, 9)
    expected = torch.nn.functional.silu(layer(x))
    out = depthwise_conv_silu(x.permute(0, 2, 3, 1), layer.weight, layer.bias)
    torch.testing.assert_close(out.permute(0, 3, 1, 2), expected)
    assert out.is_contiguous()


# ---- instance norm


@needs_kernels
@DTYPES
@pytest.mark.parametrize("residual", ["none", "plain", "normalised"])
@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 130, 3, 41)], ids=str)
def test_instance_norm_act(
    shape: tuple[int, ...], residual: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = rounded(dtype, x=2 * noise(*shape) + 1)
    if residual != "none":
        inputs |= rounded(dtype, residual=noise(*shape, seed=3) - 1)

    def op(x: Tensor, residual_map: Tensor | None = None) -> Tensor:
        return instance_norm_act(
            x, residual=residual_map, normalise_residual=residual == "normalised", slope=0.01
        )

    check(op, inputs, monkeypatch)


@needs_kernels
def test_instance_norm_with_weights_and_a_large_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 12, 20, 21)
    inputs = rounded(
        torch.float32, x=noise(*shape) + 1000, weight=noise(12, seed=1), bias=noise(12, seed=2)
    )
    check(instance_norm_act, inputs, monkeypatch)


@needs_kernels
def test_instance_norm_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    from swin_umamba_ops.backends import triton_instance_norm

    monkeypatch.setattr(triton_instance_norm, "processors", lambda device: 1000)
    monkeypatch.setattr(triton_instance_norm, "_TILE", 64)
    inputs = rounded(torch.float32, x=noise(1, 8, 33, 31))
    check(instance_norm_act, inputs, monkeypatch)


@needs_kernels
def test_gradient_of_a_part_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back through a concatenation is taken as it lies."""
    inputs = rounded(torch.float32, x=noise(2, 12, 5, 7), other=noise(2, 4, 5, 7, seed=1))

    def op(x: Tensor, other: Tensor) -> Tensor:
        parts = torch.cat((other, instance_norm_act(x, slope=0.01)), dim=1)
        return parts.contiguous(memory_format=torch.channels_last)

    check(op, inputs, monkeypatch)


# ---- 3x3 convolutions


@needs_kernels
@DTYPES
@pytest.mark.parametrize("E", [6, 70])
@pytest.mark.parametrize("C", [1, 12, 17, 70])
def test_conv3x3(C: int, E: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few channels out take the mirrored way and our weight gradient, many or few in neither."""
    inputs = {name: t.to(dtype) for name, t in _convolution(C, E).items()}
    check(conv3x3, inputs, monkeypatch)


@needs_kernels
@DTYPES
def test_norm_act_conv3x3(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {name: t.to(dtype) for name, t in _convolution(24, 10).items()}

    def op(x: Tensor, weight: Tensor) -> Tensor:
        return norm_act_conv3x3(x, weight, slope=0.01)

    check(op, inputs, monkeypatch)


def _convolution(C: int, E: int) -> dict[str, Tensor]:
    return {"x": noise(2, C, 9, 7), "weight": noise(E, C, 3, 3, seed=1) / (9 * C) ** 0.5}


@needs_kernels
@pytest.mark.parametrize("op", [conv3x3, norm_act_conv3x3])
def test_under_autocast_no_copy_of_a_weight_is_kept(
    op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swin-UMamba's took 64 MB. Their gradients come in float32."""
    x, weight = _convolution(24, 10).values()
    truth = with_gradients(op, [x, weight])[2]
    use_kernels(monkeypatch)
    x, weight = x.to(DEVICE, torch.float32), weight.to(DEVICE, torch.float32)
    autocast = torch.autocast(DEVICE, torch.bfloat16)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: None), autocast:
        op(x, weight.requires_grad_())
    assert [t.data_ptr() for t in kept if t.shape[2:] == (3, 3)] == [weight.data_ptr()]
    with autocast:
        found = with_gradients(op, [x, weight.detach()])[2]
    assert found.dtype == torch.float32
    assert error(found, truth) < 2e-2


def test_convolution_is_pytorchs() -> None:
    x, weight = (t.float() for t in _convolution(5, 8).values())
    plain = torch.nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(conv3x3(x, weight), plain, rtol=0, atol=0)
    active = instance_norm_act(x, slope=0.1)
    plain = torch.nn.functional.conv2d(active, weight, padding=1)
    torch.testing.assert_close(norm_act_conv3x3(x, weight, slope=0.1), plain, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv3x3(x, weight).dtype == torch.bfloat16


# ---- two linear layers with a GELU between them


@needs_kernels
@DTYPES
@pytest.mark.parametrize(
    "sizes", [(2, 3, 5, 24, 96), (1, 1, 1, 3, 7), (2, 9, 15, 40, 70), (1, 2, 3, 130, 40)], ids=str
)
def test_mlp_gelu(
    sizes: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole tiles and parts of them, in every direction; as many features out as in, and more."""
    *shape, C, E = sizes
    F = C if E % 2 == 0 else C + 2
    inputs = rounded(
        dtype, x=noise(*shape, C), weight1=2 * noise(E, C, seed=1) / C**0.5,
        bias1=noise(E, seed=2), weight2=noise(F, E, seed=3) / E**0.5, bias2=noise(F, seed=4),
    )  # fmt: skip
    check(mlp_gelu, inputs, monkeypatch)


@needs_kernels
def test_mlp_gelu_keeps_no_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(monkeypatch)
    kept: list[Tensor] = []
    shapes = ((2, 3, 8), (12, 8), (12,), (5, 12), (5,))
    leaves = [noise(*n).to(DEVICE, torch.float32).requires_grad_() for n in shapes]
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: None):
        mlp_gelu(*leaves)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in leaves]


def test_mlp_gelu_is_pytorchs() -> None:
    layers = torch.nn.Sequential(
        torch.nn.Linear(6, 24), torch.nn.GELU(), torch.nn.Linear(24, 5)
    ).double()
    x = noise(2, 7, 9, 6)
    torch.testing.assert_close(mlp_gelu(x, *layers.parameters()), layers(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp_gelu(x.float(), *layers.float().parameters()).dtype == torch.bfloat16
