"""The ops under PyTorch's transforms and tools: right, or refused by name."""

from __future__ import annotations

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import ScanCase, SS2DCase, Target, make_scan, make_ss2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import swin_umamba_ops as ops

CASE, SCAN = SS2DCase(2, 4, 3, 5, 2, 1), ScanCase(2, 4, 6, 3, 2)
LIBRARY = torch.ops.swin_umamba


def _tensors(name: str, target: Target) -> list[Tensor]:
    made = make_ss2d(CASE) if name == "ss2d" else make_scan(SCAN)
    return [t.to(target.device, torch.float32) for t in made.values()]


def _function(name: str, backend: str) -> Any:
    if name == "ss2d":
        return partial(ops.ss2d, backend=backend)
    return partial(ops.selective_scan, delta_softplus=True, backend=backend)


NAMES = pytest.mark.parametrize("name", ["ss2d", "selective_scan"])


@pytest.fixture(params=["ss2d", "selective_scan"])
def case(request: pytest.FixtureRequest, target: Target) -> tuple[Any, Any, list[Tensor]]:
    """A function of a backend, the same of the reference, and inputs."""
    name = request.param
    return (
        _function(name, target.backend),
        _function(name, "reference"),
        _tensors(name, target),
    )


Case = tuple[Any, Any, list[Tensor]]


# ---- torch.func


def test_func_grad(case: Case) -> None:
    run, reference, tensors = case
    places = tuple(range(len(tensors)))

    def loss(function: Any) -> Any:
        return lambda *t: function(*t).square().sum()

    expected = torch.func.grad(loss(reference), argnums=places)(*tensors)
    for a, b in zip(torch.func.grad(loss(run), argnums=places)(*tensors), expected, strict=True):
        torch.testing.assert_close(a, b)
    (one,) = torch.func.grad(loss(run), argnums=(2,))(*tensors)
    torch.testing.assert_close(one, expected[2])


def test_func_grad_twice_raises(case: Case) -> None:
    run, _, tensors = case

    def twice(t: Tensor) -> Tensor:
        rest = tensors[1:]
        return torch.func.grad(lambda x: run(x, *rest).sum())(t).sum()

    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.func.grad(twice)(tensors[0])


@pytest.mark.parametrize("mode", ["jvp", "forward"])
def test_forward_mode_is_refused(case: Case, mode: str) -> None:
    run, _, tensors = case
    if mode == "jvp":
        call = partial(torch.func.jvp, run, tuple(tensors), tuple(map(torch.ones_like, tensors)))
    else:
        call = partial(torch.func.jacfwd(run), *tensors)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"jvp|forward mode"):
        call()


def test_a_tensor_that_left_its_transform(case: Case) -> None:
    """It stands for what it was made of, gradients too."""
    run, reference, tensors = case
    x = tensors[0].clone().requires_grad_()
    left: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        left.append(t)
        return t.sum()

    torch.func.grad(keep)(x)
    found, expected = (
        torch.autograd.grad(function(*first, *tensors[1:]).square().sum(), x)
        for function, first in ((run, left), (reference, [x]))
    )
    torch.testing.assert_close(found, expected)


def test_vmap(case: Case) -> None:
    """Over each input alone, and over all."""
    run, _, tensors = case
    stacked = [torch.stack([t, 2 * t, t.flip(0)], dim=-1) for t in tensors]
    for i in (*range(len(tensors)), None):
        dims = tuple(-1 if i in (j, None) else None for j in range(len(tensors)))
        given = [s if d == -1 else t for s, t, d in zip(stacked, tensors, dims, strict=True)]
        mapped = torch.func.vmap(run, in_dims=dims)(*given)
        for k in range(3):
            alone = [g[..., k] if d == -1 else g for g, d in zip(given, dims, strict=True)]
            torch.testing.assert_close(mapped[k], run(*alone))


def test_gradients_of_each_sample(case: Case) -> None:
    """vmap of grad, and grad of vmap."""
    run, reference, tensors = case
    x, *rest = tensors
    samples = torch.stack([x, -x, x.flip(0)])

    def loss(function: Any, t: Tensor, first: Tensor) -> Tensor:
        out: Tensor = function(t, first, *rest[1:]).square().sum()
        return out

    def per_sample(function: Any) -> Any:
        gradient = torch.func.grad(partial(loss, function), argnums=(0, 1))
        return torch.func.vmap(gradient, in_dims=(0, None))(samples, rest[0])

    def total(function: Any) -> Any:
        mapped = torch.func.vmap(partial(loss, function), in_dims=(0, None))
        return torch.func.grad(lambda *t: mapped(*t).sum(), argnums=(0, 1))(samples, rest[0])

    for make in (per_sample, total):
        for a, b in zip(make(run), make(reference), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_jacobians(case: Case) -> None:
    """By rows, which batches the backward pass."""
    run, reference, tensors = case
    x, *rest = tensors

    def row(function: Any, t: Tensor) -> Tensor:
        out: Tensor = function(t, *rest)[0, 0].flatten()[:4]
        return out

    jacobian = torch.func.jacrev(partial(row, run))(x)
    torch.testing.assert_close(jacobian, torch.func.jacrev(partial(row, reference))(x))
    leaf = x.clone().requires_grad_()
    out = row(run, leaf)
    (rows,) = torch.autograd.grad(out, leaf, torch.eye(4, device=x.device), is_grads_batched=True)
    torch.testing.assert_close(rows, jacobian)


# ---- modules


class _Layer(nn.Module):
    """An op between parameters, as people write it."""

    def __init__(self, name: str, target: Target) -> None:
        super().__init__()
        self.name, self.backend = name, target.backend
        _, *rest = _tensors(name, target)
        # Parameters of the scan that a batch is cut along are no parameters: D and A only.
        self.values = nn.ParameterList(rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _function(self.name, self.backend)(x, *self.values)
        return out


@NAMES
def test_modules_are_copied_pickled_and_called_with_other_parameters(
    name: str, target: Target
) -> None:
    layer = _Layer(name, target)
    x = _tensors(name, target)[0]
    expected = layer(x)
    expected.sum().backward()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), expected)
        other.zero_grad()
        other(x).sum().backward()
        for a, b in zip(other.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    doubled = {k: 2 * v.detach() for k, v in layer.named_parameters()}
    called = torch.func.functional_call(layer, doubled, (x,))
    torch.testing.assert_close(called, _function(name, target.backend)(x, *doubled.values()))


def test_data_parallel_runs_and_its_replicas_threads_agree(target: Target) -> None:
    """Without GPUs DataParallel calls the module; with some its replicas run in threads."""
    layer = _Layer("ss2d", target)
    x = _tensors("ss2d", target)[0]
    torch.testing.assert_close(nn.DataParallel(layer)(x), layer(x))
    with ThreadPoolExecutor(3) as threads:
        replicas = [copy.deepcopy(layer) for _ in range(3)]
        outs = threads.map(lambda call: call[0](call[1]), zip(replicas, (x, 2 * x, x), strict=True))
    for out, given in zip(outs, (x, 2 * x, x), strict=True):
        torch.testing.assert_close(out, layer(given))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpoints(case: Case, reentrant: bool) -> None:
    run, _, tensors = case
    leaves = [t.clone().requires_grad_() for t in tensors]
    expected = torch.autograd.grad(run(*leaves).square().sum(), leaves)
    out = checkpoint(run, *leaves, use_reentrant=reentrant)
    out.square().sum().backward()
    for t, wanted in zip(leaves, expected, strict=True):
        torch.testing.assert_close(t.grad, wanted)


@pytest.mark.slow
def test_compiled_autograd(case: Case) -> None:
    run, _, tensors = case
    leaves = [t.clone().requires_grad_() for t in tensors]
    expected = torch.autograd.grad(run(*leaves).square().sum(), leaves)
    torch._dynamo.reset()
    out = run(*leaves).square().sum()
    compiler = partial(torch.compile, backend="eager")
    with torch._dynamo.compiled_autograd._enable(compiler):
        out.backward()
    for t, wanted in zip(leaves, expected, strict=True):
        torch.testing.assert_close(t.grad, wanted)


# ---- tools


def test_execution_traces_name_the_ops(case: Case, tmp_path: Path) -> None:
    run, _, tensors = case
    leaves = [t.clone().requires_grad_() for t in tensors]
    observer = torch.profiler.ExecutionTraceObserver()
    file = tmp_path / "trace.json"
    observer.register_callback(str(file))
    observer.start()
    run(*leaves).sum().backward()
    observer.stop()
    observer.unregister_callback()
    names = {node["name"] for node in json.loads(file.read_text())["nodes"]}
    ours = {n for n in names if n.startswith("swin_umamba::")}
    assert len(ours) == 2, ours
    assert any(n.endswith("_backward") for n in ours)


def test_users_override_an_op(target: Target) -> None:
    """By torch.library, for one device, without touching ours."""
    x, *rest = _tensors("ss2d", target)
    calls = []
    library = torch.library.Library("swin_umamba", "IMPL")

    def mine(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        calls.append(x.shape)
        return torch.full_like(x, 7.0), x.new_empty(0)

    try:
        library.impl("ss2d_scan", mine, target.device.upper())
        with torch.no_grad():
            assert (ops.ss2d(x, *rest, backend=target.backend) == 7).all()
    finally:
        library._destroy()
    assert len(calls) == 1
    assert not (ops.ss2d(x, *rest, backend=target.backend) == 7).all()


# ---- what kernels may be given


def test_negative_views_are_read_as_what_they_are(case: Case) -> None:
    """Values that memory holds with the other sign: the imaginary part of a conjugate."""
    run, _, tensors = case
    expected = run(*tensors)

    def negative(t: Tensor) -> Tensor:
        view = torch.complex(torch.zeros_like(t), -t).conj().imag
        assert view.is_neg()
        return view

    torch.testing.assert_close(run(*map(negative, tensors)), expected)
    leaves = [t.clone().requires_grad_() for t in tensors]
    gradients = torch.autograd.grad(run(*leaves), leaves, torch.ones_like(expected))
    ones = negative(torch.ones_like(expected))
    for a, b in zip(torch.autograd.grad(run(*leaves), leaves, ones), gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_at_any_address(target: Target) -> None:
    """The last state's gradient begins in the middle of another tensor, 12 bytes off."""
    made = make_scan(ScanCase(1, 3, 5, 16))
    made.pop("z")
    leaves = [t.to(target.device, torch.float32).requires_grad_() for t in made.values()]
    u, delta, A, B, C, D, bias = leaves

    def gradients(backend: str, copied: bool) -> tuple[Tensor, ...]:
        out, last = ops.selective_scan(
            u, delta, A, B, C, D, delta_bias=bias, return_last_state=True, backend=backend
        )
        joined = torch.cat([out.flatten(), last.flatten()])
        weight = torch.arange(joined.numel(), device=joined.device).float()
        if copied:
            grads = weight[: out.numel()].view_as(out), weight[out.numel() :].view_as(last).clone()
            return torch.autograd.grad((out, last), leaves, grads)
        offset = weight[out.numel() :]
        assert offset.data_ptr() % 16 == 12
        return torch.autograd.grad(joined, leaves, weight)

    expected = gradients(target.backend, True)
    for a, b in zip(gradients(target.backend, False), expected, strict=True):
        torch.testing.assert_close(a, b)


def _op_inputs(target: Target) -> list[Any]:
    x, x_proj_weight, *rest = _tensors("ss2d", target)
    pixels = x.permute(0, 2, 3, 1).contiguous()
    proj = (pixels @ x_proj_weight.flatten(0, 1).t()).unflatten(-1, x_proj_weight.shape[:2])
    return [pixels, proj, *rest, target.backend, torch.float32, False]


def test_ops_copy_what_kernels_cannot_read(target: Target) -> None:
    """Called by their own names too: other strides, other addresses."""
    inputs = _op_inputs(target)
    expected, _ = LIBRARY.ss2d_scan(*inputs)

    def off(t: Tensor) -> Tensor:
        room = t.new_empty(t.numel() + 1)
        room[1:] = t.flatten()
        return room[1:].view_as(t)

    def strided(t: Tensor) -> Tensor:
        return t.repeat_interleave(2, -1)[..., ::2]

    for change in (off, strided):
        changed = [change(t) if isinstance(t, Tensor) else t for t in inputs]
        torch.testing.assert_close(LIBRARY.ss2d_scan(*changed)[0], expected)


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        (0, lambda t: t[0], ValueError, r"x has shape .* expected \(B, H, W, D\)"),
        (1, lambda t: t[..., 1:], ValueError, "proj has shape"),
        (1, lambda t: t.double(), TypeError, "proj has dtype torch.float64, expected"),
        (2, lambda t: t[:, :, :0], ValueError, "dt_projs_weight has shape"),
        (3, lambda t: t.half(), TypeError, "dt_projs_bias has dtype torch.float16"),
        (4, lambda t: t[1:], ValueError, "A_logs has shape"),
        (5, lambda t: t.to("meta"), ValueError, "Ds is on meta, expected"),
        (6, lambda _: "reference", RuntimeError, "has no kernels of ss2d: it is plain PyTorch"),
        (6, lambda _: "none", ValueError, "backend is 'none', expected one of"),
    ],
)
def test_ops_refuse_by_name(
    place: int, change: Any, error: type[Exception], message: str, target: Target
) -> None:
    inputs = _op_inputs(target)
    inputs[place] = change(inputs[place])
    with pytest.raises(error, match=message):
        LIBRARY.ss2d_scan(*inputs)


def test_a_program_for_the_cpu_refuses_other_devices(target: Target) -> None:
    """An op of an exported program names its backend: tensors elsewhere are told so."""
    if target.device != "cpu":
        pytest.skip("the CPU's backends")
    if target.backend != "cpu":
        pytest.skip("it supports any device")
    from swin_umamba_ops import backends

    with pytest.raises(
        RuntimeError, match=r"'cpu' does not support cuda:0.*it supports CPU tensors"
    ):
        backends.kernels("ss2d", "cpu", torch.device("cuda:0"), torch.float32, 4)


# ---- what nobody wants


class _Backwards(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[list[bool]] = []
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().endswith("_scan_backward"):
            self.wanted.append(list(args[-1]))
        if "mm" in func.name():
            self.products += 1
        return func(*args, **(kwargs or {}))


def test_a_frozen_layer_computes_dx_alone(case: Case) -> None:
    run, _, tensors = case
    leaves = [t.clone().requires_grad_() for t in tensors]
    expected, *_ = torch.autograd.grad(run(*leaves).sum(), leaves)
    frozen = [leaves[0], *tensors[1:]]
    out = run(*frozen)
    with _Backwards() as seen:
        out.sum().backward()
    torch.testing.assert_close(leaves[0].grad, expected)
    (wanted,) = seen.wanted
    if len(wanted) == 6:  # ss2d: the projection's gradient leads to x
        assert wanted == [True, True, False, False, False, False]
        assert seen.products == 1
    else:
        assert wanted == [True] + [False] * 6


def test_nothing_is_computed_where_nothing_is_wanted(case: Case) -> None:
    run, _, tensors = case
    assert not run(*tensors).requires_grad
    leaf = tensors[0].clone().requires_grad_()
    out = run(leaf, *tensors[1:])
    with _Backwards() as seen:
        (2 * leaf + 0 * out.detach().sum()).sum().backward()
    assert not seen.wanted
