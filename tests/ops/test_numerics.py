"""The conventions that every backend shares, against numbers from their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from swin_umamba_ops.numerics import softplus, state_dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("raw", [-80.0, -20.0, -1.0, 0.0, 1.0, 15.0, 21.0, 35.0, 45.0, 1000.0])
def test_softplus_is_exact(raw: float, dtype: torch.dtype) -> None:
    """Above 20, too, where torch's default cuts it off 2e-9 early."""
    exact = max(raw, 0.0) + math.log1p(math.exp(-abs(raw)))
    actual = softplus(torch.tensor(raw, dtype=dtype)).item()
    assert actual == pytest.approx(exact, rel=2 * torch.finfo(dtype).eps, abs=0)


def test_softplus_has_the_logistic_function_as_derivative() -> None:
    raw = torch.linspace(-60, 60, 121, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(softplus(raw).sum(), raw)
    torch.testing.assert_close(slope, torch.sigmoid(raw.detach()), rtol=1e-14, atol=0)


def test_states_are_kept_in_float32_at_least() -> None:
    assert state_dtype(torch.float64) == torch.float64
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert state_dtype(dtype) == torch.float32
