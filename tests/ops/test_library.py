"""The torch.library ops: opcheck, torch.compile, autograd's edges, FLOP counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from cases import (
    ScanCase,
    SS2DCase,
    Target,
    Tensors,
    cast_scan,
    cast_ss2d,
    make_scan,
    make_ss2d,
    noise_like,
    with_gradients,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import swin_umamba_ops as ops

LIBRARY = torch.ops.swin_umamba
CASE = SS2DCase(2, 8, 9, 11, 4, 2)
ONE_STATE = SS2DCase(2, 8, 9, 11, 1, 2)
SCAN = ScanCase(2, 6, 70, 4, 2)


def _ss2d_op_inputs(target: Target, case: SS2DCase, requires_grad: bool = False) -> list[Tensor]:
    B, H, W, N, R = case.B, case.H, case.W, case.N, case.R
    t = cast_ss2d(make_ss2d(case), torch.float32, target.device)
    x = t["x"].permute(0, 2, 3, 1).contiguous()
    proj = noise_like(torch.zeros(B, H, W, 4, R + 2 * N)).to(target.device)
    inputs = [x, proj, t["dt_projs_weight"], t["dt_projs_bias"], t["A_logs"], t["Ds"]]
    return [v.requires_grad_(requires_grad) for v in inputs]


def _scan_op_inputs(target: Target, requires_grad: bool = False) -> list[Tensor]:
    t = cast_scan(make_scan(SCAN), torch.float32, target.device)
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    return [t[name].requires_grad_(requires_grad) for name in names]


each_case = pytest.mark.parametrize("case", [CASE, ONE_STATE], ids=str)


@each_case
@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.float16], ids=str)
def test_opcheck_ss2d_scan(
    target: Target, case: SS2DCase, save: bool, out_dtype: torch.dtype
) -> None:
    inputs = _ss2d_op_inputs(target, case, requires_grad=save)
    torch.library.opcheck(LIBRARY.ss2d_scan, (*inputs, target.backend, out_dtype, save))


@each_case
def test_opcheck_ss2d_scan_backward(target: Target, case: SS2DCase) -> None:
    inputs = _ss2d_op_inputs(target, case)
    y, states = LIBRARY.ss2d_scan(*inputs, target.backend, torch.float32, True)
    torch.library.opcheck(
        LIBRARY.ss2d_scan_backward, (noise_like(y).to(y.device), *inputs, states, target.backend)
    )


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("optional", [True, False])
def test_opcheck_selective_scan(target: Target, save: bool, optional: bool) -> None:
    inputs: list[Tensor | None] = [*_scan_op_inputs(target, requires_grad=save)]
    if not optional:
        inputs[-2:] = [None, None]
    torch.library.opcheck(
        LIBRARY.selective_scan, (*inputs, True, target.backend, torch.float32, save)
    )


@pytest.mark.parametrize("optional", [True, False])
def test_opcheck_selective_scan_backward(target: Target, optional: bool) -> None:
    inputs: list[Tensor | None] = [*_scan_op_inputs(target)]
    if not optional:
        inputs[-2:] = [None, None]
    out, last, states = LIBRARY.selective_scan(*inputs, True, target.backend, torch.float32, True)
    dlast = noise_like(last).to(last.device) if optional else None
    torch.library.opcheck(
        LIBRARY.selective_scan_backward,
        (noise_like(out).to(out.device), dlast, *inputs, True, states, target.backend),
    )


def _ss2d(backend: str, *tensors: Tensor) -> Tensor:
    return ops.ss2d(*tensors, backend=backend)


def _scan(backend: str, *tensors: Tensor) -> Tensor:
    out, last = ops.selective_scan(
        *tensors, delta_softplus=True, return_last_state=True, backend=backend
    )
    return torch.cat([out.flatten(), last.flatten()])


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Tensors]] = {
    "ss2d": (_ss2d, make_ss2d(CASE)),
    "ss2d of one state": (_ss2d, make_ss2d(ONE_STATE)),
    "selective_scan": (_scan, make_scan(SCAN)),
}


def _float32(inputs: Tensors, target: Target) -> Tensors:
    return {name: t.to(target.device, torch.float32) for name, t in inputs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_in_one_graph(target: Target, name: str, dynamic: bool) -> None:
    function, inputs = FUNCTIONS[name]
    inputs = _float32(inputs, target)
    eager = partial(function, target.backend)
    torch._dynamo.reset()
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    gradient = noise_like(eager(*inputs.values()))
    expected = with_gradients(eager, inputs, gradient)
    for key, value in with_gradients(compiled, inputs, gradient).items():
        torch.testing.assert_close(value, expected[key])


@pytest.mark.slow
def test_compiled_serves_another_size(target: Target) -> None:
    torch._dynamo.reset()
    eager = partial(ops.ss2d, backend=target.backend)
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager", dynamic=True)
    for case in (CASE, SS2DCase(3, 8, 5, 12, 4, 2), SS2DCase(1, 8, 20, 7, 4, 2)):
        inputs = cast_ss2d(make_ss2d(case), torch.float32, target.device).values()
        torch.testing.assert_close(compiled(*inputs), eager(*inputs))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_raise(target: Target, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    leaves = [t.requires_grad_() for t in _float32(inputs, target).values()]
    out = function(target.backend, *leaves).square().sum()
    first = torch.autograd.grad(out, leaves, create_graph=True)
    with pytest.raises(RuntimeError, match=r"second derivatives .* not implemented"):
        torch.autograd.grad(sum(g.sum() for g in first), leaves)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_raises(target: Target, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    tensors = list(_float32(inputs, target).values())
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(t, torch.ones_like(t)) for t in tensors]
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            function(target.backend, *duals)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_input_alone_gets_its_gradient(target: Target, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    inputs = _float32(inputs, target)
    run = partial(function, target.backend)
    gradient = noise_like(run(*inputs.values()))
    expected = with_gradients(run, inputs, gradient)
    for wanted in inputs:
        tensors = {n: t.detach().clone().requires_grad_(n == wanted) for n, t in inputs.items()}
        run(*tensors.values()).backward(gradient.to(target.device))
        for n, t in tensors.items():
            if n == wanted:
                torch.testing.assert_close(t.grad, expected[f"d{n}"])
            else:
                assert t.grad is None


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_gradients_nothing_is_saved_or_changed(target: Target, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    inputs = _float32(inputs, target)
    for t in inputs.values():
        t.requires_grad_()
    expected = function(target.backend, *inputs.values())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, _RecordOps() as record:
            torch.testing.assert_close(function(target.backend, *inputs.values()), expected)
        assert record.saved == [False]


class _RecordOps(torch.utils._python_dispatch.TorchDispatchMode):
    """Records the `save` argument of our forward ops, and all tensors that our ops take."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[bool] = []
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (LIBRARY.ss2d_scan.default, LIBRARY.selective_scan.default):
            self.saved.append(args[-1])
        if func.namespace == "swin_umamba":
            self.tensors += [t for t in args if isinstance(t, Tensor)]
        return func(*args, **(kwargs or {}))


def _call_and_gradients(target: Target, *leaves: Tensor) -> tuple[Tensor, ...]:
    y = ops.ss2d(*leaves, backend=target.backend)
    return (y, *torch.autograd.grad(y.sum(), leaves))


def _leaves(target: Target) -> list[Tensor]:
    return [t.requires_grad_() for t in _float32(make_ss2d(CASE), target).values()]


def test_fake_tensors_do_not_reach_a_backend(target: Target) -> None:
    leaves = _leaves(target)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(t) for t in leaves]
        y, *gradients = _call_and_gradients(target, *fakes)
    for actual, expected in zip((y, *gradients), (leaves[0], *leaves), strict=True):
        assert isinstance(actual, FakeTensor)
        assert actual.shape == expected.shape


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_modes_traces_and_the_profiler_see_the_ops(target: Target) -> None:
    leaves = _leaves(target)
    expected = _call_and_gradients(target, *leaves)
    forward, backward = "swin_umamba::ss2d_scan", "swin_umamba::ss2d_scan_backward"

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        profiled = _call_and_gradients(target, *leaves)
    assert {forward, backward} <= {event.key for event in profile.key_averages()}
    torch.testing.assert_close(profiled, expected)

    with _RecordFunctions() as record:
        ops.ss2d(*leaves, backend=target.backend)
    assert LIBRARY.ss2d_scan.default in record.functions

    graph = make_fx(partial(_call_and_gradients, target))(*leaves).graph
    called = [node.target for node in graph.nodes]
    assert LIBRARY.ss2d_scan.default in called
    assert LIBRARY.ss2d_scan_backward.default in called

    traced = torch.jit.trace(
        lambda *tensors: ops.ss2d(*tensors, backend=target.backend),
        tuple(t.detach() for t in leaves),
    )
    assert forward in {node.kind() for node in traced.graph.nodes()}


class _RecordFunctions(torch.overrides.TorchFunctionMode):
    """Records what is called from Python."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[Any] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.functions.append(func)
        return func(*args, **(kwargs or {}))


def test_subclasses_stay_what_they_are(target: Target) -> None:
    x, *parameters = _float32(make_ss2d(CASE), target).values()
    y = ops.ss2d(x.as_subclass(_Subclass), *parameters, backend=target.backend)
    assert type(y) is _Subclass


class _Subclass(Tensor):
    pass


def test_vmap_runs_the_op_on_each(target: Target) -> None:
    x, *parameters = _float32(make_ss2d(CASE), target).values()
    run = partial(ops.ss2d, backend=target.backend)
    mapped = torch.func.vmap(lambda image: run(image[None], *parameters)[0])(x)
    torch.testing.assert_close(mapped, run(x, *parameters))


def test_forward_mode_raises_without_gradients_too(target: Target) -> None:
    tensors = list(_float32(make_ss2d(CASE), target).values())
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        duals = [torch.autograd.forward_ad.make_dual(t, torch.ones_like(t)) for t in tensors]
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            ops.ss2d(*duals, backend=target.backend)


def test_result_may_be_changed_in_place(target: Target) -> None:
    leaves = _leaves(target)
    y, *expected = _call_and_gradients(target, *leaves)
    changed = ops.ss2d(*leaves, backend=target.backend).mul_(2)
    torch.testing.assert_close(changed, 2 * y)
    for actual, wanted in zip(torch.autograd.grad(changed.sum(), leaves), expected, strict=True):
        torch.testing.assert_close(actual, 2 * wanted)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_backends_are_given_contiguous_tensors(target: Target, name: str) -> None:
    function, inputs = FUNCTIONS[name]
    transposed = [
        t.mT.contiguous().mT if t.dim() > 1 else t for t in _float32(inputs, target).values()
    ]
    leaves = [t.requires_grad_() for t in transposed]
    with _RecordOps() as record:
        out = function(target.backend, *leaves)
        torch.autograd.grad(out, leaves, torch.ones((), device=out.device).expand_as(out))
    assert len(record.tensors) > 2 * len(leaves)
    assert all(t.is_contiguous() for t in record.tensors)


def test_saves_one_state_per_chunk_and_nothing_as_long_as_all_states(target: Target) -> None:
    case = SS2DCase(1, 64, 32, 32, 16, 2)
    inputs = cast_ss2d(make_ss2d(case), torch.float32, target.device)
    sizes: list[int] = []

    def pack(t: Tensor) -> Tensor:
        sizes.append(t.numel())
        return t

    leaves = [t.requires_grad_() for t in inputs.values()]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ops.ss2d(*leaves, backend=target.backend)
    all_states = 4 * 64 * 16 * 32 * 32
    assert max(sizes) <= all_states // 8


def test_gradients_twice_through_one_graph(target: Target) -> None:
    leaves = [t.requires_grad_() for t in _float32(make_ss2d(CASE), target).values()]
    y = ops.ss2d(*leaves, backend=target.backend).square().sum()
    first = torch.autograd.grad(y, leaves, retain_graph=True)
    second = torch.autograd.grad(y, leaves)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


def test_flops_of_ss2d(target: Target) -> None:
    B, D, L, N, R = CASE.B, CASE.D, CASE.H * CASE.W, CASE.N, CASE.R
    leaves = [t.requires_grad_() for t in _float32(make_ss2d(CASE), target).values()]
    with FlopCounterMode(display=False) as counter:
        y = ops.ss2d(*leaves, backend=target.backend)
    projections = 2 * B * L * 4 * D * (R + 2 * N) + 2 * B * L * 4 * D * R
    forward = projections + 9 * B * L * 4 * D * N + B * L * 4 * D
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_flops_of_selective_scan(target: Target) -> None:
    leaves = [t.requires_grad_() for t in _float32(make_scan(SCAN), target).values()]
    forward = SCAN.B * SCAN.L * SCAN.D * (9 * SCAN.N + 1)
    with FlopCounterMode(display=False) as counter:
        out = ops.selective_scan(*leaves, backend=target.backend)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_works_on_meta_tensors_through_fakes(target: Target) -> None:
    inputs = [t.to("meta") for t in _ss2d_op_inputs(target, CASE)]
    y, states = LIBRARY.ss2d_scan(*inputs, target.backend, torch.bfloat16, True)
    assert y.shape == inputs[0].shape
    assert y.dtype == torch.bfloat16
    assert states.shape[:2] == (CASE.B, 4)
    assert states.dtype == torch.float32
