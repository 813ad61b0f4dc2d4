"""What holds for every fused op: opcheck, fakes, second derivatives, refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fused_checks import (
    DEVICE,
    conv3x3,
    depthwise_conv_silu,
    instance_norm_act,
    layer_norm,
    mlp_gelu,
    needs_kernels,
    noise,
    norm_act_conv3x3,
    use_kernels,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import swin_umamba_ops as ops

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
        "mlp_gelu": (x, *(leaf(*n, seed=6) for n in ((12, 8), (12,), (5, 12), (5,)))),
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
        "mlp_gelu": mlp_gelu,
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
    "mlp_gelu",
)


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str) -> None:
    """Every op as the public function calls it, forwards and backwards."""
    with _Calls() as calls, pytest.MonkeyPatch.context() as patch:
        use_kernels(patch)
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
    use_kernels(monkeypatch)
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
@pytest.mark.parametrize(("name", "place"), [("layer_norm", 1), ("depthwise_conv_silu", 0)])
def test_half_of_a_larger_map_is_read_where_it_is(
    name: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the fakes; a map whose positions are not evenly spaced is copied."""
    use_kernels(monkeypatch)
    leaves = [t.detach().requires_grad_() for t in _leaves(name)]
    y = _call(name, *leaves)
    expected = [y, *torch.autograd.grad(y.sum(), leaves)]
    whole = torch.stack([leaves[place].detach()] * 2, dim=-2).flatten(-2).requires_grad_()
    turned = leaves[place].detach().transpose(1, 2).contiguous().requires_grad_()
    halves = {whole: whole[..., whole.shape[-1] // 2 :], turned: turned.transpose(1, 2)}
    for leaf, view in halves.items():
        given = [*leaves]
        given[place] = view
        with _Calls() as calls:
            y = _call(name, *given)
            found = [
                y,
                *torch.autograd.grad(y.sum(), [*leaves[:place], view, *leaves[place + 1 :]]),
            ]
        torch.testing.assert_close(found, expected)
        for func, arguments, _ in calls.seen:
            shared = any(
                isinstance(t, Tensor) and t.untyped_storage() is leaf.untyped_storage()
                for t in arguments
            )
            assert shared == (leaf is whole), func
            torch.library.opcheck(func, pytree.tree_map_only(Tensor, Tensor.detach, arguments))


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_raise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a gradient that depends on the inputs alone."""
    use_kernels(monkeypatch)
    leaves = _leaves(name)
    for loss in (Tensor.sum, lambda y: y.float().square().sum()):
        (dx,) = torch.autograd.grad(loss(_call(name, *leaves)), leaves[0], create_graph=True)
        with pytest.raises(RuntimeError, match="second derivatives"):
            dx.sum().backward()


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_activation_checkpoints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(monkeypatch)
    leaves = _leaves(name)
    expected = torch.autograd.grad(_call(name, *leaves).sum(), leaves)
    recomputed = checkpoint(partial(_call, name), *leaves, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(recomputed.sum(), leaves), expected)


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_what_nobody_wants_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen layer's backward pass has the input's gradient alone."""
    use_kernels(monkeypatch)
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
    use_kernels(monkeypatch)
    x, *rest = _leaves(name)
    empty = [t.detach()[:0] if t.shape == x.shape else t for t in (x, *rest)]
    empty = [t.detach().requires_grad_() for t in empty]
    _call(name, *empty).sum().backward()
    for t in empty:
        assert t.grad is not None
        assert not t.grad.any()


@needs_kernels
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_compiles_in_one_graph(name: str, dynamic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(monkeypatch)
    leaves = _leaves(name)

    def with_gradients(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        y = function(name, *leaves)
        return y, *torch.autograd.grad(y.float().square().sum(), leaves)

    torch._dynamo.reset()
    compiled = torch.compile(_call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    torch.testing.assert_close(with_gradients(compiled), with_gradients(_call))


@needs_kernels
@pytest.mark.parametrize("name", NAMES)
def test_transforms_of_torch_func(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """grad by all inputs, and vmap over it."""
    use_kernels(monkeypatch)
    leaves = _leaves(name)

    def loss(*tensors: Tensor) -> Tensor:
        return _call(name, *tensors).float().square().sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    tensors = tuple(t.detach() for t in leaves)
    by_all = torch.func.grad(loss, argnums=tuple(range(len(tensors))))
    torch.testing.assert_close(by_all(*tensors), expected)
    x, *rest = tensors
    mapped = torch.func.vmap(lambda x: torch.func.grad(loss)(x, *rest))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(mapped[0], expected[0])


def _mlp_of_ones(*shapes: tuple[int, ...]) -> Tensor:
    return ops.mlp_gelu(*(torch.ones(shape) for shape in shapes))


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
        (lambda: _mlp_of_ones((4,), (5, 3), (5,), (3, 5), (3,)), "weight1"),
        (lambda: _mlp_of_ones((3,), (5, 3), (4,), (3, 5), (3,)), "bias1"),
        (lambda: _mlp_of_ones((3,), (5, 3), (5,), (3, 4), (3,)), "weight2"),
        (lambda: _mlp_of_ones((3,), (5, 3), (5,), (2, 5), (3,)), "bias2"),
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
