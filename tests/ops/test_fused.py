"""The fused ops: their Triton kernels and their plain form against float64.

Under TRITON_INTERPRET=1 the kernels run on the CPU; without it and without a GPU, a test starts
them in a process of their own, since Triton reads the variable when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from interpreted import run_interpreted
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import swin_umamba_ops as ops

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# Where a GPU is, `-m gpu` selects these tests too.
needs_kernels = (
    pytest.mark.gpu
    if DEVICE == "cuda"
    else pytest.mark.skipif(not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")
)
FLOOR = 1e-6
LIBRARY = torch.ops.swin_umamba
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"]
)
Op = Callable[..., Tensor]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(value: Tensor, truth: Tensor) -> float:
    difference = torch.linalg.vector_norm(value.detach().cpu().double() - truth)
    norm = torch.linalg.vector_norm(truth)
    return float(difference / norm if norm > 0 else difference)


def with_gradients(op: Op, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in inputs]
    y = op(*leaves)
    dy = noise(*y.shape, seed=9).to(y.device, torch.float16).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


BACKEND = {"name": "pytorch"}  # of the ops below


def _by_backend(function: Op) -> Op:
    @wraps(function)
    def call(*inputs: Any, **options: Any) -> Tensor:
        return function(*inputs, **options, backend=BACKEND["name"])

    return call


layer_norm = _by_backend(ops.layer_norm)
depthwise_conv_silu = _by_backend(ops.depthwise_conv_silu)
instance_norm_act = _by_backend(ops.instance_norm_act)
conv3x3 = _by_backend(ops.conv3x3)
norm_act_conv3x3 = _by_backend(ops.norm_act_conv3x3)


def check(op: Op, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels against float64, held to twice the error of PyTorch's operators."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    tensors = list(inputs.values())
    on_device = [t.to(DEVICE) for t in tensors]
    truth = with_gradients(op, [t.double() for t in tensors])
    eager = with_gradients(op, tensors)
    _use_kernels(monkeypatch)
    found = with_gradients(op, on_device)
    # On the CPU PyTorch's transposed convolution may round its sums to 16 bits.
    coarsest = max(torch.finfo(t.dtype).eps for t in tensors)
    floor = FLOOR if DEVICE == "cuda" else FLOOR + coarsest
    for name, value, right, rounded in zip(["y", *inputs], found, truth, eager, strict=True):
        assert value.shape == right.shape
        assert error(value, right) <= 2 * error(rounded, right) + floor, name


def _use_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKEND, "name", "triton")


def rounded(dtype: torch.dtype, **tensors: Tensor) -> dict[str, Tensor]:
    """Activations in dtype, and parameters, which are vectors or filters, in float32."""
    return {
        name: t.to(torch.float32 if name in ("weight", "bias") else dtype)
        for name, t in tensors.items()
    }


@pytest.mark.parametrize("part", range(2))
@pytest.mark.slow
@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="they run in this process")
def test_interpreted_on_the_cpu(part: int) -> None:
    pytest.importorskip("triton")
    run_interpreted(__file__, part, 2)


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
    _use_kernels(monkeypatch)
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


# ---- all of them


def _arguments(name: str) -> tuple[Any, ...]:
    def leaf(*shape: int, seed: int) -> Tensor:
        return noise(*shape, seed=seed).to(DEVICE, torch.float32)

    x, gate = leaf(2, 3, 5, 8, seed=0), leaf(2, 3, 5, 8, seed=1)
    weight, bias, filters = leaf(8, seed=2), leaf(8, seed=3), leaf(8, 1, 3, 3, seed=4)
    kernel = leaf(4, 8, 3, 3, seed=5)
    return {
        "layer_norm": (x, gate, weight, bias, 1e-5, torch.float16),
        "depthwise_conv_silu": (x, filters, bias),
        "instance_norm_act": (x, weight, bias, gate, 2, 1e-5, 0.01),
        "conv3x3": (x, kernel),
        "norm_act_conv3x3": (x, kernel, 1e-5, 0.01),
    }[name]


def _call(name: str, *leaves: Tensor) -> Tensor:
    """The public function of an op on what `_leaves` makes."""
    return {
        "layer_norm": lambda x, gate, *parameters: layer_norm(x, *parameters, 1e-5, gate),
        "depthwise_conv_silu": depthwise_conv_silu,
        "instance_norm_act": lambda x, weight, bias, residual: instance_norm_act(
            x, weight, bias, residual=residual, normalise_residual=True, slope=0.01
        ),
        "conv3x3": conv3x3,
        "norm_act_conv3x3": norm_act_conv3x3,
    }[name](*leaves)


def _leaves(name: str) -> list[Tensor]:
    images_first = name in ("instance_norm_act", "conv3x3", "norm_act_conv3x3")
    tensors = [t for t in _arguments(name) if isinstance(t, Tensor)]
    return [
        (t.permute(0, 3, 1, 2) if images_first and t.shape == (2, 3, 5, 8) else t)
        .clone(memory_format=torch.preserve_format)
        .requires_grad_()
        for t in tensors
    ]


NAMES = (
    "layer_norm",
    "depthwise_conv_silu",
    "instance_norm_act",
    "conv3x3",
    "norm_act_conv3x3",
)


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str) -> None:
    """Every op as the public function calls it, forwards and backwards."""
    with _Calls() as calls, pytest.MonkeyPatch.context() as patch:
        _use_kernels(patch)
        _call(name, *_leaves(name)).sum().backward()
    assert {func.name() for func, _, _ in calls.seen} == {
        f"swin_umamba::{name}", f"swin_umamba::{name}_backward",
    }  # fmt: skip
    for func, arguments, _ in calls.seen:
        torch.library.opcheck(func, pytree.tree_map_only(Tensor, Tensor.detach, arguments))


class _Calls(TorchDispatchMode):
    """Our ops that are called, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, tuple[Any, ...], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "swin_umamba":
            self.seen.append((func, args, out))
        return out


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_fakes_have_the_layout_of_results(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards and backwards: what the compiler plans with is what it gets."""
    _use_kernels(monkeypatch)
    with _Calls() as calls:
        _call(name, *_leaves(name)).sum().backward()
    assert len(calls.seen) > 1
    for func, arguments, results in calls.seen:
        mode = FakeTensorMode()
        given = pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
        with mode:
            planned = func(*given)
        for fake, real in zip(
            pytree.tree_leaves(planned), pytree.tree_leaves(results), strict=True
        ):
            layouts = [(t.shape, t.stride(), t.dtype) for t in (fake, real)]
            assert layouts[0] == layouts[1], func


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_raise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a gradient that depends on the inputs alone."""
    _use_kernels(monkeypatch)
    leaves = _leaves(name)
    for loss in (Tensor.sum, lambda y: y.float().square().sum()):
        (dx,) = torch.autograd.grad(loss(_call(name, *leaves)), leaves[0], create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives"):
            dx.sum().backward()


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_wants_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen layer's backward pass has the input's gradient alone."""
    _use_kernels(monkeypatch)
    leaves = _leaves(name)
    (expected,) = torch.autograd.grad(_call(name, *leaves).sum(), leaves[:1])
    frozen = [leaves[0], *(t.detach() for t in leaves[1:])]
    with _Calls() as calls:
        _call(name, *frozen).sum().backward()
    torch.testing.assert_close(leaves[0].grad, expected)
    _, arguments, results = calls.seen[-1]
    assert arguments[-1] == [True] + [False] * (len(leaves) - 1)
    assert all(t.numel() == 0 for t in results[1:])
    with _Calls() as calls:
        _call(name, *(t.detach() for t in leaves))
    assert len(calls.seen) == 1


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_empty_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_kernels(monkeypatch)
    x, *rest = _leaves(name)
    empty = [t.detach()[:0] if t.shape == x.shape else t for t in (x, *rest)]
    empty = [t.detach().requires_grad_() for t in empty]
    _call(name, *empty).sum().backward()
    for t in empty:
        assert t.grad is not None
        assert not t.grad.any()


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: ops.layer_norm(torch.ones(2, 3), torch.ones(4), torch.ones(3), 1e-5), "weight"),
        (lambda: ops.layer_norm(torch.ones(2, 3), torch.ones(3), torch.ones(2), 1e-5), "bias"),
        (
            lambda: ops.layer_norm(
                torch.ones(2, 3), torch.ones(3), torch.ones(3), 1e-5, torch.ones(3)
            ),
            "gate",
        ),
        (
            lambda: ops.depthwise_conv_silu(
                torch.ones(1, 2, 2, 3), torch.ones(3, 1, 2, 2), torch.ones(3)
            ),
            "weight",
        ),
        (lambda: ops.instance_norm_act(torch.ones(1, 3, 1, 1)), "one position"),
        (lambda: ops.conv3x3(torch.ones(3, 2, 2), torch.ones(2, 3, 3, 3)), "x has shape"),
        (lambda: ops.conv3x3(torch.ones(1, 3, 2, 2), torch.ones(2, 2, 3, 3)), "weight has shape"),
        (lambda: ops.conv3x3(torch.ones(1, 3, 2, 2), torch.ones(2, 3, 1, 1)), "weight has shape"),
        (
            lambda: ops.conv3x3(torch.ones(1, 3, 2, 2), torch.ones(2, 3, 3, 3).double()),
            "weight has dtype",
        ),
        (
            lambda: ops.norm_act_conv3x3(torch.ones(1, 3, 1, 1), torch.ones(2, 3, 3, 3)),
            "one position",
        ),
        (lambda: ops.instance_norm_act(torch.ones(1, 3, 2, 2), torch.ones(3)), "weight and bias"),
        (
            lambda: ops.instance_norm_act(torch.ones(1, 3, 2, 2), residual=torch.ones(1, 3, 2, 1)),
            "residual",
        ),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Tensor], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        call()
