"""What the public functions promise about dtypes, layouts, autocast, and odd sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from cases import (
    DTYPES,
    ScanCase,
    SS2DCase,
    Target,
    Tensors,
    cast_scan,
    cast_ss2d,
    differing,
    disturbed_runs,
    make_scan,
    make_ss2d,
    noise_like,
    relative_error,
    with_gradients,
)

import swin_umamba_ops as ops

CASE = SS2DCase(2, 8, 5, 7, 4, 2)
SCAN = ScanCase(2, 6, 20, 4, 2)


def _ss2d(target: Target, dtype: torch.dtype = torch.float32, case: SS2DCase = CASE) -> Tensors:
    reason = target.why_not(dtype, case.N)
    if reason is not None:
        pytest.skip(reason)
    return cast_ss2d(make_ss2d(case), dtype, target.device)


@pytest.mark.parametrize("backend", ["reference", None])
@pytest.mark.parametrize("out_dtype", [None, *DTYPES], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_dtype_and_layout(
    target: Target, dtype: torch.dtype, out_dtype: torch.dtype | None, backend: str | None
) -> None:
    inputs = _ss2d(target, dtype)
    leaves = [t.requires_grad_() for t in inputs.values()]
    y = ops.ss2d(*leaves, out_dtype=out_dtype, backend=backend or target.backend)
    default = torch.float64 if dtype == torch.float64 else torch.float32
    assert y.dtype == (out_dtype or default)
    assert y.shape == inputs["x"].shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    for t in leaves:
        assert t.grad is not None
        assert t.grad.dtype == t.dtype
        assert t.grad.shape == t.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_parameters(target: Target, dtype: torch.dtype) -> None:
    half = {name: t.to(dtype).requires_grad_() for name, t in _ss2d(target).items()}
    y = ops.ss2d(*half.values(), backend=target.backend)
    y.sum().backward()
    assert y.dtype == torch.float32
    assert all(t.grad is not None and t.grad.dtype == dtype for t in half.values())
    full = [t.float() if name != "x" else t for name, t in half.items()]
    torch.testing.assert_close(y, ops.ss2d(*full, backend=target.backend))


def test_float64_x_promotes_float32_parameters(target: Target) -> None:
    inputs = _ss2d(target, torch.float64)
    single = {n: t if n == "x" else t.float().requires_grad_() for n, t in inputs.items()}
    y = ops.ss2d(*single.values(), backend=target.backend)
    y.sum().backward()
    assert y.dtype == torch.float64
    assert all(t.grad.dtype == torch.float32 for n, t in single.items() if n != "x")
    exact = ops.ss2d(*(t.double() for t in single.values()), backend="reference")
    assert relative_error(y, exact) < 1e-12


@pytest.mark.parametrize("backend", ["reference", None])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_casts_x(target: Target, dtype: torch.dtype, backend: str | None) -> None:
    name = backend or target.backend
    inputs = _ss2d(target, torch.float32)
    expected = ops.ss2d(inputs["x"].to(dtype), *list(inputs.values())[1:], backend=name)
    leaves = [t.requires_grad_() for t in inputs.values()]
    with torch.autocast(target.device, dtype=dtype):
        y = ops.ss2d(*leaves, backend=name)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in leaves)


def test_autocast_leaves_float64_alone(target: Target) -> None:
    inputs = _ss2d(target, torch.float64)
    expected = ops.ss2d(*inputs.values(), backend=target.backend)
    with torch.autocast(target.device, dtype=torch.bfloat16):
        y = ops.ss2d(*inputs.values(), backend=target.backend)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_lowers_nothing_but_x(target: Target, dtype: torch.dtype, rank: int) -> None:
    """What a backend makes of half inputs it makes as without autocast, forwards and backwards."""
    inputs = _ss2d(target, case=replace(CASE, R=rank))
    inputs["x"] = inputs["x"].to(dtype)
    leaves = [t.requires_grad_() for t in inputs.values()]
    expected = ops.ss2d(*leaves, backend=target.backend)
    expected_grads = torch.autograd.grad(expected.sum(), leaves)
    with torch.autocast(target.device, dtype=dtype):
        y = ops.ss2d(*leaves, backend=target.backend)
        grads = torch.autograd.grad(y.sum(), leaves)
    torch.testing.assert_close(y, expected)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        # Sums of half gradients may be rounded either way: four sums meet in any order.
        assert relative_error(actual, wanted) < 2 * torch.finfo(dtype).eps


def test_autocast_does_not_lower_the_scan(target: Target) -> None:
    """selective_scan takes its inputs as they are: nothing inside may run in half."""
    inputs = cast_scan(make_scan(SCAN), torch.float32, target.device)
    leaves = [t.requires_grad_() for t in inputs.values()]
    expected = ops.selective_scan(*leaves, delta_softplus=True, backend=target.backend)
    expected_grads = torch.autograd.grad(expected.sum(), leaves)
    with torch.autocast(target.device, dtype=torch.bfloat16):
        out = ops.selective_scan(*leaves, delta_softplus=True, backend=target.backend)
        grads = torch.autograd.grad(out.sum(), leaves)
    torch.testing.assert_close(out, expected)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("backend", ["reference", None])
def test_empty_batch(target: Target, backend: str | None) -> None:
    inputs = _ss2d(target)
    inputs["x"] = inputs["x"][:0]
    leaves = [t.requires_grad_() for t in inputs.values()]
    y = ops.ss2d(*leaves, backend=backend or target.backend)
    assert y.shape == (0, CASE.D, CASE.H, CASE.W)
    y.sum().backward()
    for t in leaves:
        assert t.grad is not None
        assert t.grad.shape == t.shape
        assert not t.grad.any()


@pytest.mark.parametrize("backend", ["reference", None])
def test_empty_batch_of_selective_scan(target: Target, backend: str | None) -> None:
    inputs = cast_scan(make_scan(SCAN), torch.float32, target.device)
    for name in ("u", "delta", "B", "C", "z"):
        inputs[name] = inputs[name][:0]
    leaves = [t.requires_grad_() for t in inputs.values()]
    name = backend or target.backend
    out, last = ops.selective_scan(*leaves, return_last_state=True, backend=name)
    assert out.shape == (0, SCAN.D, SCAN.L)
    assert last.shape == (0, SCAN.D, SCAN.N)
    (out.sum() + last.sum()).backward()
    for t in leaves:
        assert t.grad is not None
        assert t.grad.shape == t.shape
        assert not t.grad.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_selective_scan_returns_dtype_of_u(target: Target, dtype: torch.dtype) -> None:
    if (reason := target.why_not(dtype, SCAN.N)) is not None:
        pytest.skip(reason)
    inputs = cast_scan(make_scan(SCAN), dtype, target.device)
    out, last = ops.selective_scan(*inputs.values(), return_last_state=True, backend=target.backend)
    assert out.dtype == dtype
    assert last.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_selective_scan_mixes_half_u_with_float32_rest(target: Target) -> None:
    inputs = cast_scan(make_scan(SCAN), torch.float32, target.device)
    inputs["u"] = inputs["u"].to(torch.bfloat16)
    leaves = [t.requires_grad_() for t in inputs.values()]
    out = ops.selective_scan(*leaves, delta_softplus=True, backend=target.backend)
    widened = [inputs["u"].float(), *leaves[1:]]
    wide = ops.selective_scan(*widened, delta_softplus=True, backend=target.backend)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, wide.to(torch.bfloat16))
    out.sum().backward()
    assert all(t.grad is not None and t.grad.dtype == t.dtype for t in leaves)


def test_maps_without_groups(target: Target) -> None:
    inputs = cast_scan(make_scan(ScanCase(2, 6, 20, 4, 1)), torch.float32, target.device)
    grouped = ops.selective_scan(*inputs.values(), backend=target.backend)
    inputs |= {"B": inputs["B"][:, 0], "C": inputs["C"][:, 0]}
    assert torch.equal(ops.selective_scan(*inputs.values(), backend=target.backend), grouped)


def test_alias_for_mamba_ssm() -> None:
    t = make_scan(SCAN)
    out, last = ops.selective_scan_fn(
        u=t["u"],
        delta=t["delta"],
        A=t["A"],
        B=t["B"],
        C=t["C"],
        D=t["D"],
        z=t["z"],
        delta_bias=t["delta_bias"],
        delta_softplus=True,
        return_last_state=True,
    )
    expected, expected_last = ops.selective_scan(*t.values(), True, True, backend="reference")
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(last, expected_last)


def test_results_repeat_bitwise_in_deterministic_mode(target: Target) -> None:
    inputs = _ss2d(target, case=SS2DCase(3, 40, 23, 19, 16, 3))
    run = partial(
        with_gradients, partial(ops.ss2d, backend=target.backend), inputs, noise_like(inputs["x"])
    )
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert not differing(disturbed_runs(run, 3))
    finally:
        torch.use_deterministic_algorithms(before)


def test_inputs_are_left_alone(target: Target) -> None:
    inputs = _ss2d(target)
    before = [t.clone() for t in inputs.values()]
    leaves = [t.requires_grad_() for t in inputs.values()]
    ops.ss2d(*leaves, backend=target.backend).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, leaves, strict=True))
