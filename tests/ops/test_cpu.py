"""The CPU kernels themselves: every instruction set of this machine, exp and softplus, threads."""

from __future__ import annotations

import ctypes
import sys
import threading
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
from swin_umamba_ops.inputs import ScanInputs, SS2DInputs

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


def test_other_threads_run_while_a_kernel_does() -> None:
    """Threads hand over when one waits, or at calls that release the interpreter's lock, alone."""
    events: list[str] = []
    x = np.zeros(1 << 24)
    address = x.ctypes.data_as(ctypes.c_void_p).value
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)

    def call() -> None:
        events.append("start")
        _extension.module().cpu.elementwise("exp", True, address, address, address, x.size)
        events.append("end")

    thread = threading.Thread(target=call)
    try:
        thread.start()  # waits for it to run
        events.append("meanwhile")
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert events == ["start", "meanwhile", "end"]


def test_fields_of_an_op_are_checked_by_name() -> None:
    sizes = dict.fromkeys(("B", "G", "D", "L", "N", "storage", "softplus"), 1)
    with pytest.raises(TypeError, match=r"the field '\w+' is missing"):
        _extension.module().cpu.scan_forward(False, 1, **sizes)
    with pytest.raises(TypeError, match="no field 'dt'"):
        _extension.module().cpu.scan_forward(False, 1, dt=1)
    with pytest.raises(TypeError, match="cannot set 'u'"):
        _extension.module().cpu.scan_forward(False, 1, u="here")


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
            names = ("dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
            inputs = SS2DInputs(x, proj, *[image[n] for n in names])
            backend = backends.load("cpu")
            y, states = backend.ss2d_forward(inputs, torch.float32, True)
            grads = backend.ss2d_backward(noise_like(y), inputs, states)
            names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
            given = ScanInputs(*[sequence[n] for n in names], delta_softplus=True)
            out = backend.selective_scan_forward(given, torch.float32, True)
            more = backend.selective_scan_backward(
                noise_like(out[0]), noise_like(out[1]), given, out[2]
            )
            runs.append([y, states, *grads, *out, *more])
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


HALF = [torch.bfloat16, torch.float16]


def _outputs(image: Tensors, sequence: Tensors, half: torch.dtype) -> list[torch.Tensor]:
    """All that the backend returns for `half` inputs, each beside that for the same widened."""
    backend = backends.load("cpu")
    x = image["x"].permute(0, 2, 3, 1).contiguous().to(half)
    N, R = image["A_logs"].shape[1], image["dt_projs_weight"].shape[2]
    proj = noise_like(torch.empty(*x.shape[:3], 4, R + 2 * N)).to(half)
    given = [x, proj, image["dt_projs_weight"].to(half)]
    given += [image[name].float() for name in ("dt_projs_bias", "A_logs", "Ds")]
    large = [sequence[name].to(half) for name in ("u", "delta", "B", "C")]
    rest = [sequence[name].float() for name in ("A", "D", "delta_bias")]
    found = []
    for dtype in (half, torch.float32):
        inputs = SS2DInputs(*[t.to(dtype) for t in given[:3]], *given[3:])
        y, states = backend.ss2d_forward(inputs, torch.float32, True)
        grads = backend.ss2d_backward(noise_like(y), inputs, states)
        u, delta, B, C = (t.to(dtype) for t in large)
        arguments = ScanInputs(u, delta, rest[0], B, C, *rest[1:], delta_softplus=True)
        out = backend.selective_scan_forward(arguments, torch.float32, True)
        more = backend.selective_scan_backward(
            noise_like(out[0]), noise_like(out[1]), arguments, out[2]
        )
        found.append([t.to(half) for t in (y, states, *grads, *out, *more)])
    assert len(found[0]) == len(found[1])
    return [torch.stack(pair) for pair in zip(*found, strict=True)]


@pytest.mark.parametrize("half", HALF, ids=str)
def test_half_inputs_are_read_exactly(kernels: Any, half: torch.dtype) -> None:
    """As if they had been widened to float32 before: every state and sum is float32."""
    image = make_ss2d(SS2DCase(1, 19, 7, 11, 5, 3))
    sequence = make_scan(ScanCase(2, 34, 70, 5, 2))
    for pair in _outputs(image, sequence, half):
        assert pair.isfinite().all()
        assert torch.equal(pair[0], pair[1])


@pytest.mark.parametrize("half", HALF, ids=str)
def test_every_half_number_is_read_exactly(kernels: Any, half: torch.dtype) -> None:
    """All 2**16 of them as u, where C = 0 and D = 1 hand it on."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(half)
    u = every.reshape(1, 16, 4096)
    zero = torch.zeros(1, 1, 1, 4096, dtype=half)
    inputs = ScanInputs(u, torch.zeros_like(u), -torch.ones(16, 1), zero, zero, torch.ones(16))
    out, _, _ = backends.load("cpu").selective_scan_forward(inputs, torch.float32, False)
    expected = u.float()
    # Infinite ones make 0 * inf of the state; bfloat16's subnormal ones are float32's, taken for 0.
    finite = expected.isfinite()
    expected = expected.where(expected.abs() >= torch.finfo(torch.float32).tiny, 0.0)
    assert torch.equal(out[finite], expected[finite])
    assert not out[~finite].isfinite().any()


def test_no_state_is_subnormal(kernels: Any) -> None:
    """One bright pixel, then background: exact states sink through the subnormal numbers."""
    N, steps = 4, 4096
    u = torch.zeros(1, 16, steps)
    u[..., 0] = 1
    ones = torch.ones(1, 1, N, steps)
    A = -torch.linspace(0.03, 0.2, N).expand(16, N).contiguous()
    given = ScanInputs(u, torch.ones_like(u), A, ones, ones)
    exact = torch.exp(A.double()[:, None] * torch.arange(-1, steps, 64)[1:, None])
    tiny = torch.finfo(torch.float32).tiny
    assert ((exact < tiny) & (exact > 1e-44)).any(), "the case does not reach them"
    out, last, states = backends.load("cpu").selective_scan_forward(given, torch.float32, True)
    for found in (out, last, states):
        assert ((found == 0) | (found.abs() >= tiny)).all()
    # Only within the kernels: the caller's own arithmetic keeps its subnormal numbers.
    assert (torch.tensor([tiny]) / 2 > 0).all()


@pytest.mark.parametrize("shape", [(1, 96, 72, 80), (1, 208, 40, 64), (2, 64, 90, 50)])
def test_blocks_that_take_turns_change_nothing(shape: tuple[int, int, int, int]) -> None:
    """Images larger than the cache, whose tasks hold several blocks of channels."""
    B, D, H, W = shape
    inputs = cast_ss2d(make_ss2d(SS2DCase(B, D, H, W, 2, 3)), torch.float32)
    before = torch.get_num_threads()
    found = []
    x = inputs["x"].permute(0, 2, 3, 1).contiguous()
    proj = noise_like(torch.empty(B, H, W, 4, 7))
    names = ("dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
    given = SS2DInputs(x, proj, *[inputs[name] for name in names])
    try:
        for threads in (1, 2, 5, 16):
            torch.set_num_threads(threads)
            found.append(backends.load("cpu").ss2d_forward(given, torch.float32, True))
    finally:
        torch.set_num_threads(before)
    for y, states in found[1:]:
        assert torch.equal(y, found[0][0])
        assert torch.equal(states, found[0][1])
