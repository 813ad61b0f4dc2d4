"""Every backend against the float64 reference: all sizes, dtypes and strides, all gradients."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cases import (
    DTYPES,
    SCAN_CASES,
    SS2D_CASES,
    ScanCase,
    SS2DCase,
    Target,
    Tensors,
    cast_scan,
    cast_ss2d,
    check_function,
    make_scan,
    make_ss2d,
    noise_like,
    with_gradients,
)
from torch import Tensor

import swin_umamba_ops as ops

ss2d_reference = partial(ops.ss2d, backend="reference")
scan_reference = partial(ops.selective_scan, delta_softplus=True, backend="reference")


def _skip_unsupported(target: Target, dtype: torch.dtype, N: int) -> None:
    reason = target.why_not(dtype, N)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SS2D_CASES, ids=str)
def test_ss2d(target: Target, case: SS2DCase, dtype: torch.dtype) -> None:
    _skip_unsupported(target, dtype, case.N)
    inputs = cast_ss2d(make_ss2d(case), dtype, target.device)
    check_function(partial(ops.ss2d, backend=target.backend), ss2d_reference, inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_selective_scan(target: Target, case: ScanCase, dtype: torch.dtype) -> None:
    _skip_unsupported(target, dtype, case.N)
    inputs = cast_scan(make_scan(case), dtype, target.device)
    scan = partial(ops.selective_scan, delta_softplus=True, backend=target.backend)
    check_function(scan, scan_reference, inputs)


@pytest.mark.parametrize("absent", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_selective_scan_without_optional_inputs(target: Target, absent: tuple[str, ...]) -> None:
    inputs = cast_scan(make_scan(ScanCase(2, 6, 70, 4, 2)), torch.float32, target.device)
    inputs = {name: t for name, t in inputs.items() if name not in absent}
    inputs["delta"] = inputs["delta"].abs()

    def scan(backend: str, *tensors: Tensor) -> Tensor:
        out = ops.selective_scan(**dict(zip(inputs, tensors, strict=True)), backend=backend)
        assert isinstance(out, Tensor)
        return out

    check_function(partial(scan, target.backend), partial(scan, "reference"), inputs)


@pytest.mark.parametrize("weight", [(1.0, 1.0), (0.0, 1.0)], ids=["both", "last state only"])
def test_the_last_state_is_differentiable(target: Target, weight: tuple[float, float]) -> None:
    inputs = cast_scan(make_scan(ScanCase(2, 6, 100, 4, 2)), torch.float32, target.device)

    def scan(backend: str, *tensors: Tensor) -> Tensor:
        out, last = ops.selective_scan(
            *tensors, delta_softplus=True, return_last_state=True, backend=backend
        )
        return torch.cat([weight[0] * out.flatten(), weight[1] * last.flatten()])

    check_function(partial(scan, target.backend), partial(scan, "reference"), inputs)


def test_unused_output_leaves_only_the_last_state(target: Target) -> None:
    inputs = cast_scan(make_scan(ScanCase(1, 4, 70, 3)), torch.float64, "cpu")
    if target.device != "cpu" or target.why_not(torch.float64, 3):
        pytest.skip("float64 on the CPU only")
    del inputs["z"]

    def last_state(backend: str, *tensors: Tensor) -> Tensor:
        u, delta, A, B, C, D, bias = tensors
        _, last = ops.selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend=backend)
        return last + 0 * C.sum() + 0 * D.sum()

    check_function(partial(last_state, target.backend), partial(last_state, "reference"), inputs)


def _relaid(inputs: Tensors, how: str) -> Tensors:
    """The same values in other strides."""

    def relaid(t: Tensor) -> Tensor:
        if how == "channels_last" and t.dim() == 4:
            return t.to(memory_format=torch.channels_last)
        if how == "reversed axes":
            return (
                t.permute(*reversed(range(t.dim()))).contiguous().permute(*reversed(range(t.dim())))
            )
        if how == "every other":
            return torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0]
        return t

    return {name: relaid(t) for name, t in inputs.items()}


@pytest.mark.parametrize("how", ["channels_last", "reversed axes", "every other"])
def test_ss2d_takes_any_strides(target: Target, how: str) -> None:
    case = SS2DCase(2, 12, 7, 9, 4, 3)
    plain = cast_ss2d(make_ss2d(case), torch.float32, target.device)
    gradient = noise_like(plain["x"])
    run = partial(ops.ss2d, backend=target.backend)
    expected = with_gradients(run, plain, gradient)
    actual = with_gradients(run, _relaid(plain, how), gradient)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


@pytest.mark.parametrize("how", ["reversed axes", "every other"])
def test_selective_scan_takes_any_strides(target: Target, how: str) -> None:
    plain = cast_scan(make_scan(ScanCase(2, 6, 70, 4, 2)), torch.float32, target.device)
    gradient = noise_like(plain["u"])
    run = partial(ops.selective_scan, delta_softplus=True, backend=target.backend)
    expected = with_gradients(run, plain, gradient)
    actual = with_gradients(run, _relaid(plain, how), gradient)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


def _start_anywhere(inputs: Tensors) -> Tensors:
    """The same values, one element behind the start of memory that is aligned."""

    def moved(t: Tensor) -> Tensor:
        shape = t.permute(0, 2, 3, 1).shape if t.dim() == 4 else t.shape
        memory = t.new_empty(t.numel() + 1)[1:].view(shape)
        memory = memory.permute(0, 3, 1, 2) if t.dim() == 4 else memory
        return memory.copy_(t)

    return {name: moved(t) for name, t in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_inputs_may_start_anywhere(target: Target, dtype: torch.dtype) -> None:
    _skip_unsupported(target, dtype, N=16)
    plain = cast_ss2d(make_ss2d(SS2DCase(2, 16, 7, 9, 16, 2)), dtype, target.device)
    gradient = _start_anywhere({"y": noise_like(plain["x"]).to(target.device)})["y"]
    run = partial(ops.ss2d, backend=target.backend)
    expected = with_gradients(run, plain, gradient)
    actual = with_gradients(run, _start_anywhere(plain), gradient)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_sequences_may_start_anywhere(target: Target, dtype: torch.dtype) -> None:
    _skip_unsupported(target, dtype, N=16)
    plain = cast_scan(make_scan(ScanCase(2, 6, 72, 16)), dtype, target.device)
    gradient = noise_like(plain["u"])
    run = partial(ops.selective_scan, delta_softplus=True, backend=target.backend)
    expected = with_gradients(run, plain, gradient)
    moved = {
        name: t.new_empty(t.numel() + 1)[1:].view(t.shape).copy_(t) for name, t in plain.items()
    }
    actual = with_gradients(run, moved, gradient)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


@pytest.mark.parametrize("kind", ["expanded", "channels_first", "strided"])
def test_any_gradient_strides(target: Target, kind: str) -> None:
    inputs = cast_ss2d(make_ss2d(SS2DCase(2, 12, 7, 9, 4, 3)), torch.float32, target.device)
    leaves = [t.requires_grad_() for t in inputs.values()]
    y = ops.ss2d(*leaves, backend=target.backend)
    if kind == "expanded":
        gradient = torch.ones((), device=y.device).expand_as(y)
    elif kind == "channels_first":
        gradient = noise_like(y).to(y.device)
    else:
        gradient = noise_like(torch.zeros(*y.shape[:3], 2 * y.shape[3])).to(y.device)[..., ::2]
    actual = torch.autograd.grad(y, leaves, gradient, retain_graph=True)
    copied = gradient.clone(memory_format=torch.channels_last)
    expected = torch.autograd.grad(y, leaves, copied)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


def test_more_channels_than_a_grid_has_rows(target: Target) -> None:
    """B * D above 65535, where a CUDA grid's second and third axes end."""
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 66_000, 2, 1, 1, 1)), torch.float32, target.device)
    check_function(partial(ops.ss2d, backend=target.backend), ss2d_reference, inputs)
    many = cast_ss2d(make_ss2d(SS2DCase(70_000, 1, 1, 2, 1, 1)), torch.float32, target.device)
    check_function(partial(ops.ss2d, backend=target.backend), ss2d_reference, many)
