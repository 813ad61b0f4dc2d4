"""The accuracy rule of cases.py accepts what float32 loses, and refuses wrong kernels."""

from __future__ import annotations

import pytest
import torch
from cases import ScanCase, cast_scan, check_function, make_scan, noise_like
from torch import Tensor

import swin_umamba_ops as ops

# The summands of ddelta_bias add up to a 50th of what they do without cancellation.
CANCELLING = ScanCase(B=1, D=1, L=61, N=8)
SEED = 6060


def _reference(*tensors: Tensor) -> Tensor:
    out = ops.selective_scan(*tensors, delta_softplus=True, backend="reference")
    assert isinstance(out, Tensor)
    return out


def _scan(roundings: float, *tensors: Tensor) -> Tensor:
    """The scan with so many more roundings in each step's gradient."""
    u, delta, A, B, C, D, z, bias = tensors
    raw = delta + bias[:, None]
    if raw.requires_grad:
        eps = torch.finfo(raw.dtype).eps
        raw.register_hook(lambda g: g * (1 + roundings * eps * noise_like(g, 3)))
    out = ops.selective_scan(u, raw, A, B, C, D, z, delta_softplus=True, backend="pytorch")
    assert isinstance(out, Tensor)
    return out


def _check(roundings: float) -> None:
    inputs = cast_scan(make_scan(CANCELLING, SEED), torch.float32)
    check_function(lambda *tensors: _scan(roundings, *tensors), _reference, inputs)


def test_a_sum_that_cancels_may_lose_what_its_summands_do() -> None:
    _check(4)


def test_a_sum_that_cancels_is_held_to_its_summands() -> None:
    with pytest.raises(AssertionError, match=r"ddelta_bias: error .* above"):
        _check(100)


def test_a_relative_error_of_1e_5_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    sigmoid = torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda t: sigmoid(t) * (1 + 1e-5))
    with pytest.raises(AssertionError, match=r"ddelta: error"):
        _check(0)
