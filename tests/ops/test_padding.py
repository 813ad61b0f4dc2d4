"""Ranks and states padded to those with fast kernels leave results and gradients as they are."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from cases import SS2DCase, check_function, make_ss2d, noise_like, with_gradients

import swin_umamba_ops as ops
from swin_umamba_ops.backends import pytorch
from swin_umamba_ops.inputs import SS2DArguments, SS2DInputs

CASE = SS2DCase(2, 6, 5, 7, 3, 3)
ss2d = partial(ops.ss2d, backend="pytorch")


@pytest.fixture(params=[(3, 4), (8, 3), (4, 6)], ids="{0[0]} states, rank {0[1]}".format)
def padded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The states that the backend then gets."""
    seen: list[int] = []
    forward = pytorch.ss2d_forward

    def watched(inputs: SS2DInputs, *others: Any) -> object:
        seen.append(inputs.A_logs.shape[1])
        assert (inputs.A_logs.shape[1], inputs.dt_projs_weight.shape[2]) == request.param
        return forward(inputs, *others)

    monkeypatch.setattr(pytorch, "ss2d_sizes", lambda *_: request.param)
    monkeypatch.setattr(pytorch, "ss2d_forward", watched)
    return seen


def test_gradients_have_the_shapes_of_what_was_padded(padded: list[int]) -> None:
    inputs = make_ss2d(CASE)
    results = with_gradients(ss2d, inputs, noise_like(inputs["x"]))
    assert padded
    for name, value in inputs.items():
        assert results[f"d{name}"].shape == value.shape


def test_results_and_gradients_agree_with_the_reference(padded: list[int]) -> None:
    inputs = {name: t.float() for name, t in make_ss2d(CASE).items()}
    check_function(ss2d, partial(ops.ss2d, backend="reference"), inputs)
    assert padded


def test_a_backend_that_wants_no_padding_gets_the_tensors_themselves() -> None:
    from swin_umamba_ops import backends
    from swin_umamba_ops.padding import pad_ranks_and_states

    inputs = make_ss2d(CASE)
    given = SS2DArguments(**inputs)
    out = pad_ranks_and_states(backends.BACKENDS["pytorch"], torch.float64, given)
    assert all(a is b for a, b in zip(given, out, strict=True))
