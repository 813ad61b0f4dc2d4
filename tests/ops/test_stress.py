"""Ranges that mixed-precision training meets: nothing turns into NaN or infinity."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cases import (
    ScanCase,
    SS2DCase,
    Target,
    cast_scan,
    cast_ss2d,
    check_function,
    make_scan,
    make_ss2d,
    noise_like,
    with_gradients,
)

import swin_umamba_ops as ops

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CASE = SS2DCase(2, 16, 12, 17, 8, 2)


def _skip_unsupported(target: Target, dtype: torch.dtype) -> None:
    if (reason := target.why_not(dtype, CASE.N)) is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_large_activations(target: Target, dtype: torch.dtype) -> None:
    """x a hundred times its usual size drives dt from 0 to hundreds.

    The gradient is small, as a scaled loss would make it: the sums of a large one overflow half.
    """
    _skip_unsupported(target, dtype)
    inputs = cast_ss2d(make_ss2d(CASE, scale=100.0), dtype, target.device)
    run = partial(ops.ss2d, backend=target.backend)
    for name, t in with_gradients(run, inputs, 1e-7 * noise_like(inputs["x"])).items():
        assert t.isfinite().all(), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [-1000.0, -60.0, 30.0, 1000.0])
def test_saturated_steps(target: Target, bias: float, dtype: torch.dtype) -> None:
    """dt underflows to 0, or is so large that every step forgets its past."""
    _skip_unsupported(target, dtype)
    inputs = cast_ss2d(make_ss2d(CASE), dtype, target.device)
    inputs["dt_projs_bias"] = torch.full_like(inputs["dt_projs_bias"], bias)
    reference = partial(ops.ss2d, backend="reference")
    check_function(partial(ops.ss2d, backend=target.backend), reference, inputs)


@pytest.mark.parametrize("A_log", [-50.0, 20.0, 80.0])
def test_slow_and_fast_decay(target: Target, A_log: float) -> None:
    """exp(dt A) is 1 to the last digit, or 0."""
    inputs = cast_ss2d(make_ss2d(CASE), torch.float32, target.device)
    inputs["A_logs"] = torch.full_like(inputs["A_logs"], A_log)
    reference = partial(ops.ss2d, backend="reference")
    check_function(partial(ops.ss2d, backend=target.backend), reference, inputs)


def test_growing_states(target: Target) -> None:
    """A may be positive in selective_scan: states then grow, which is what was asked for."""
    inputs = cast_scan(make_scan(ScanCase(1, 4, 150, 3)), torch.float32, target.device)
    inputs["A"] = inputs["A"].abs() * 0.05
    scan = partial(ops.selective_scan, delta_softplus=True)
    check_function(
        partial(scan, backend=target.backend), partial(scan, backend="reference"), inputs
    )
