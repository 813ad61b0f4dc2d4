"""The fused ops: their Triton kernels and their plain form against float64.

Under TRITON_INTERPRET=1 the kernels run on the CPU; without it and without a GPU, a test starts
them in a process of their own, since Triton reads the variable when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
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


def check(op: Op, inputs: dict[str, Tensor], plain: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels against float64, held to twice the error of PyTorch's operators."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    tensors = list(inputs.values())
    on_device = [t.to(DEVICE) for t in tensors]
    truth = with_gradients(plain, [t.double() for t in tensors])
    eager = with_gradients(plain, tensors)
    _serve_all(monkeypatch)
    found = with_gradients(op, on_device)
    for name, value, right, rounded in zip(["y", *inputs], found, truth, eager, strict=True):
        assert value.shape == right.shape
        assert error(value, right) <= 2 * error(rounded, right) + FLOOR, name


def _serve_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("convolution", "depthwise", "instance_norm", "layer_norm"):
        # By its full name: the package's own layer_norm is the function.
        module = import_module(f"swin_umamba_ops.fused.{name}")
        monkeypatch.setattr(module, "kernels_serve", lambda x: True)


def rounded(dtype: torch.dtype, **tensors: Tensor) -> dict[str, Tensor]:
    """Activations in dtype, and parameters, which are vectors or filters, in float32."""
    return {
        name: t.to(torch.float32 if name in ("weight", "bias") else dtype)
        for name, t in tensors.items()
    }


@pytest.mark.slow
@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETED, reason="they run in this process")
def test_interpreted_on_the_cpu() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


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
        return ops.layer_norm(x, weight, bias, 1e-5)

    check(op, inputs, op, monkeypatch)


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
        return ops.layer_norm(x, weight, bias, 1e-5, gate)

    check(op, inputs, op, monkeypatch)


def test_layer_norm_has_the_dtype_of_autocast_gate_or_x() -> None:
    x, w = noise(2, 8).float(), torch.ones(8)
    assert ops.layer_norm(x, w, w, 1e-5).dtype == torch.float32
    assert ops.layer_norm(x, w, w, 1e-5, gate=x.half()).dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.layer_norm(x, w, w, 1e-5).dtype == torch.bfloat16
        assert ops.layer_norm(x.double(), w, w, 1e-5).dtype == torch.float64


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
    check(ops.depthwise_conv_silu, inputs, ops.depthwise_conv_silu, monkeypatch)


def test_depthwise_conv_silu_is_the_layers() -> None:
    layer = torch.nn.Conv2d(6, 6, 5, padding=2, groups=6).double()
    x = noise(2, 6, 7, 9)
    expected = torch.nn.functional.silu(layer(x))
    out = ops.depthwise_conv_silu(x.permute(0, 2, 3, 1), layer.weight, layer.bias)
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
        return ops.instance_norm_act(
            x, residual=residual_map, normalise_residual=residual == "normalised", slope=0.01
        )

    check(op, inputs, op, monkeypatch)


@needs_kernels
def test_instance_norm_with_weights_and_a_large_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 12, 20, 21)
    inputs = rounded(
        torch.float32, x=noise(*shape) + 1000, weight=noise(12, seed=1), bias=noise(12, seed=2)
    )
    check(ops.instance_norm_act, inputs, ops.instance_norm_act, monkeypatch)


@needs_kernels
def test_instance_norm_in_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("swin_umamba_ops.fused.instance_norm")
    monkeypatch.setattr(module, "processors", lambda device: 1000)
    monkeypatch.setattr(module, "_TILE", 64)
    inputs = rounded(torch.float32, x=noise(1, 8, 33, 31))
    check(ops.instance_norm_act, inputs, ops.instance_norm_act, monkeypatch)


@needs_kernels
def test_gradient_of_a_part_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back through a concatenation is taken as it lies."""
    inputs = rounded(torch.float32, x=noise(2, 12, 5, 7), other=noise(2, 4, 5, 7, seed=1))

    def op(x: Tensor, other: Tensor) -> Tensor:
        parts = torch.cat((other, ops.instance_norm_act(x, slope=0.01)), dim=1)
        return parts.contiguous(memory_format=torch.channels_last)

    check(op, inputs, op, monkeypatch)


# ---- 3x3 convolutions


@needs_kernels
@DTYPES
@pytest.mark.parametrize("E", [6, 70])
@pytest.mark.parametrize("C", [1, 12, 17, 70])
def test_conv3x3(C: int, E: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few channels out take the mirrored way and our weight gradient, many or few in neither."""
    inputs = {name: t.to(dtype) for name, t in _convolution(C, E).items()}
    check(ops.conv3x3, inputs, ops.conv3x3, monkeypatch)


@needs_kernels
@DTYPES
def test_norm_act_conv3x3(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {name: t.to(dtype) for name, t in _convolution(24, 10).items()}

    def op(x: Tensor, weight: Tensor) -> Tensor:
        return ops.norm_act_conv3x3(x, weight, slope=0.01)

    check(op, inputs, op, monkeypatch)


def _convolution(C: int, E: int) -> dict[str, Tensor]:
    return {"x": noise(2, C, 9, 7), "weight": noise(E, C, 3, 3, seed=1) / (9 * C) ** 0.5}


@needs_kernels
@pytest.mark.parametrize("op", [ops.conv3x3, ops.norm_act_conv3x3])
def test_under_autocast_no_copy_of_a_weight_is_kept(
    op: Op, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swin-UMamba's took 64 MB. Their gradients come in float32."""
    x, weight = _convolution(24, 10).values()
    truth = with_gradients(op, [x, weight])[2]
    _serve_all(monkeypatch)
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
    torch.testing.assert_close(ops.conv3x3(x, weight), plain, rtol=0, atol=0)
    active = ops.instance_norm_act(x, slope=0.1)
    plain = torch.nn.functional.conv2d(active, weight, padding=1)
    torch.testing.assert_close(ops.norm_act_conv3x3(x, weight, slope=0.1), plain, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.conv3x3(x, weight).dtype == torch.bfloat16


# ---- all of them


def _arguments(name: str) -> tuple[Any, ...]:
    def leaf(*shape: int, seed: int) -> Tensor:
        return noise(*shape, seed=seed).to(DEVICE, torch.float32).requires_grad_()

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
    torch.library.opcheck(getattr(LIBRARY, name), _arguments(name))


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
def test_fakes_have_the_layout_of_results(name: str) -> None:
    """Forwards and backwards: what the compiler plans with is what it gets."""
    with _Calls() as calls:
        y = getattr(LIBRARY, name)(*_arguments(name))
        y = y[0] if isinstance(y, tuple) else y
        y.sum().backward()
    assert len(calls.seen) > 1
    for func, arguments, results in calls.seen:
        mode = FakeTensorMode()
        given = pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
        with mode, torch._C._AutoDispatchBelowAutograd():
            planned = func(*given)
        for fake, real in zip(
            pytree.tree_leaves(planned), pytree.tree_leaves(results), strict=True
        ):
            layouts = [(t.shape, t.stride(), t.dtype) for t in (fake, real)]
            assert layouts[0] == layouts[1], func


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_raise(name: str) -> None:
    arguments = _arguments(name)
    y = getattr(LIBRARY, name)(*arguments)
    y = y[0] if isinstance(y, tuple) else y
    (dx,) = torch.autograd.grad(y.float().square().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_empty_batches(name: str) -> None:
    x, *rest = _arguments(name)
    empty = [
        t[:0].detach().requires_grad_() if isinstance(t, Tensor) and t.shape == x.shape else t
        for t in (x, *rest)
    ]
    y = getattr(LIBRARY, name)(*empty)
    y = y[0] if isinstance(y, tuple) else y
    y.sum().backward()
    for t in empty:
        if isinstance(t, Tensor):
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
