"""Whatever the shape, strides, dtype and range of the inputs, backends agree with the reference."""

from __future__ import annotations

from functools import partial

import torch
from cases import (
    DTYPES,
    ScanCase,
    SS2DCase,
    Target,
    cast_scan,
    cast_ss2d,
    check_function,
    make_scan,
    make_ss2d,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import swin_umamba_ops as ops

# `target` is one backend for all examples of a test, so it need not be made anew for each.
few = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
layouts = st.permutations(range(4))
ss2d_cases = st.builds(
    SS2DCase,
    B=st.integers(1, 3),
    D=st.integers(1, 70),
    H=st.integers(1, 14),
    W=st.integers(1, 14),
    N=st.integers(1, 20),
    R=st.integers(1, 8),
)


@st.composite
def scan_cases(draw: st.DrawFn) -> ScanCase:
    G = draw(st.integers(1, 4))
    return ScanCase(
        B=draw(st.integers(1, 3)),
        D=G * draw(st.integers(1, 20)),
        L=draw(st.integers(1, 150)),
        N=draw(st.integers(1, 20)),
        G=G,
    )


def in_memory_order(t: Tensor, axes: list[int], gap: int) -> Tensor:
    """The same values with the axes laid out in another order and every `gap`-th element used."""
    spread = torch.full((*(t.shape[a] for a in axes), gap), torch.nan, dtype=t.dtype)
    spread = spread.to(t.device)
    spread[..., 0] = t.permute(axes)
    back = sorted(range(len(axes)), key=lambda i: axes[i])
    return spread[..., 0].permute(back)


@few
@given(ss2d_cases, st.sampled_from(DTYPES), layouts, st.integers(1, 2), st.integers(0, 2**16))
def test_ss2d(
    target: Target, case: SS2DCase, dtype: torch.dtype, axes: list[int], gap: int, seed: int
) -> None:
    assume(target.why_not(dtype, case.N) is None)
    inputs = cast_ss2d(make_ss2d(case, seed), dtype, target.device)
    inputs["x"] = in_memory_order(inputs["x"], axes, gap)
    reference = partial(ops.ss2d, backend="reference")
    check_function(partial(ops.ss2d, backend=target.backend), reference, inputs)


@few
@given(scan_cases(), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**16))
def test_selective_scan(
    target: Target, case: ScanCase, dtype: torch.dtype, softplus: bool, seed: int
) -> None:
    assume(target.why_not(dtype, case.N) is None)
    inputs = cast_scan(make_scan(case, seed), dtype, target.device)
    if not softplus:
        inputs["delta"] = inputs["delta"].abs()
        inputs["delta_bias"] = inputs["delta_bias"].abs()

    def scan(backend: str, *tensors: Tensor) -> Tensor:
        out = ops.selective_scan(*tensors, delta_softplus=softplus, backend=backend)
        assert isinstance(out, Tensor)
        return out

    check_function(partial(scan, target.backend), partial(scan, "reference"), inputs)
