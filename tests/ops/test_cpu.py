"""The CPU kernels themselves: every instruction set of this machine, exp and softplus, threads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from cases import (
    ScanCase,
    SS2DCase,
    Tensors,
    cast_scan,
    cast_ss2d,
    check_function,
    make_scan,
    make_ss2d,
    noise_like,
    relative_error,
    with_gradients,
)

import swin_umamba_ops as ops
from swin_umamba_ops import backends
from swin_umamba_ops.backends import _extension

REASON = backends.why_unusable("cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
SETS: list[str] = [] if REASON else _extension.module().cpu.instruction_sets()

ss2d = partial(ops.ss2d, backend="cpu")
scan = partial(ops.selective_scan, delta_softplus=True, backend="cpu")


@pytest.fixture(params=SETS)
def kernels(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The compiled kernels, on each instruction set that was built and runs here."""
    cpu = _extension.module().cpu
    before = cpu.instruction_set()
    cpu.set_instruction_set(request.param)
    assert cpu.instruction_set() == request.param
    yield cpu
    cpu.set_instruction_set(before)


def _elementwise(kernels: Any, function: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, derivative = np.full_like(x, np.nan), np.full_like(x, np.nan)
    addresses = [a.ctypes.data_as(ctypes.c_void_p).value for a in (x, y, derivative)]
    kernels.elementwise(function, x.dtype == np.float64, *addresses, x.size)
    return y, derivative


def _worst_ulp(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of the right result."""
    error = np.abs(actual.astype(np.longdouble) - exact)
    return float(np.max(error / np.spacing(np.abs(exact).astype(actual.dtype))))


def _points(dtype: type, low: float, high: float) -> np.ndarray:
    """Numbers over the whole range and, as many, near zero; not a whole number of vectors."""
    rng = np.random.default_rng(0)
    wide = rng.uniform(low, high, 100_003)
    small = wide * 10.0 ** rng.uniform(-8, 0, wide.size)
    return np.concatenate([wide, small]).astype(dtype)


def _skip_without_wider_numbers(dtype: type) -> None:
    if np.finfo(np.longdouble).eps >= np.finfo(dtype).eps:
        pytest.skip("numpy has no wider type here to compare with")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", ["exp", "exp2"])
def test_exp_errs_by_less_than_two_units(kernels: Any, function: str, dtype: type) -> None:
    _skip_without_wider_numbers(dtype)
    limit = np.log2(float(np.finfo(dtype).max)) * (np.log(2) if function == "exp" else 1) - 2
    x = _points(dtype, -limit, limit)
    exact = getattr(np, function)(x.astype(np.longdouble))
    assert _worst_ulp(_elementwise(kernels, function, x)[0], exact) < 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softplus_and_its_derivative_err_by_few_units(kernels: Any, dtype: type) -> None:
    _skip_without_wider_numbers(dtype)
    x = _points(dtype, -80, 80)
    y, derivative = _elementwise(kernels, "softplus", x)
    wide = x.astype(np.longdouble)
    small = np.exp(-np.abs(wide))
    assert _worst_ulp(y, np.maximum(wide, 0) + np.log1p(small)) < 3
    assert _worst_ulp(derivative, np.where(wide < 0, small, 1) / (1 + small)) < 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits(kernels: Any, dtype: type) -> None:
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30], dtype)
    one = [1, 1, np.inf, 0, np.nan, np.inf, 0]
    np.testing.assert_array_equal(_elementwise(kernels, "exp", x)[0], np.array(one, dtype))
    np.testing.assert_array_equal(_elementwise(kernels, "exp2", x)[0], np.array(one, dtype))
    y, derivative = _elementwise(kernels, "softplus", x[2:])
    np.testing.assert_array_equal(y, np.array([np.inf, 0, np.nan, 1e30, 0], dtype))
    np.testing.assert_array_equal(derivative, np.array([1, 0, np.nan, 1, 0], dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("N", [1, 2, 3, 7, 16])
def test_every_instruction_set(kernels: Any, N: int, dtype: torch.dtype) -> None:
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 19, 7, 11, N, 3)), dtype)
    check_function(ss2d, partial(ops.ss2d, backend="reference"), inputs)
    sequence = cast_scan(make_scan(ScanCase(2, 34, 70, N, 2)), dtype)
    plain = partial(ops.selective_scan, delta_softplus=True, backend="reference")
    check_function(scan, plain, sequence)


def test_unknown_instruction_set() -> None:
    with pytest.raises(ValueError, match="no instruction set 'mmx'"):
        _extension.module().cpu.set_instruction_set("mmx")


def _large() -> Tensors:
    """Large enough that the backward sums over blocks of channels in several rounds."""
    return cast_ss2d(make_ss2d(SS2DCase(2, 40, 50, 70, 16, 3)), torch.float32)


def test_several_rounds() -> None:
    inputs = {name: t.double() for name, t in _large().items()}
    gradient = noise_like(inputs["x"])
    exact = with_gradients(partial(ops.ss2d, backend="pytorch"), inputs, gradient)
    for name, value in with_gradients(ss2d, inputs, gradient).items():
        assert relative_error(value, exact[name]) < 1e-12, name


def test_the_number_of_threads_changes_nothing() -> None:
    image = _large()
    sequence = cast_scan(make_scan(ScanCase(2, 48, 3000, 16, 3)), torch.float32)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            # The projection around the scan is torch's, whose sums may depend on the threads.
            x = image["x"].permute(0, 2, 3, 1).contiguous()
            proj = noise_like(torch.empty(*x.shape[:3], 4, 35))
            rest = [image[n] for n in ("dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")]
            backend = backends.load("cpu")
            y, states = backend.ss2d_forward(x, proj, *rest, torch.float32, True)
            grads = backend.ss2d_backward(noise_like(y), x, proj, *rest, states)
            given = [sequence[n] for n in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
            out = backend.selective_scan_forward(*given, True, torch.float32, True)
            more = backend.selective_scan_backward(
                noise_like(out[0]), noise_like(out[1]), *given, True, out[2]
            )
            runs.append([y, states, *grads, *out, *more])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
