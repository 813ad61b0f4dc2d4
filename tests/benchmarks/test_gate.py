"""The gate passes correct competitors, and distinguishes wrong ones from failing ones."""

from __future__ import annotations

import pytest
import torch

import swin_umamba_ops as ops
from benchmarks.measuring import cases
from benchmarks.measuring.cases import PARAMETERS
from benchmarks.ops import gate, plain
from benchmarks.ops.competitors import Competitor, Step, leaf, selective_scan_prepare

CPU = torch.device("cpu")


def of_function(function):
    """A competitor whose ss2d is `function` of x and the five parameters."""

    def prepare(activations, parameters):
        x = leaf(activations["x"])
        own = {name: leaf(parameters[name]) for name in PARAMETERS}
        return Step(lambda: function(x, *own.values()), {"x": x, **own}, activations["dy"])

    return Competitor("fake", False, {"ss2d": prepare})


def reference(x, *parameters):
    return ops.ss2d(x, *parameters, backend="reference")


def scaled_gradient(x, *parameters):
    """The right output, and a gradient of x that is 1 % off."""
    y = reference(x, *parameters)
    return y + 0.01 * (x - x.detach()).float() * y.detach()


def transposed(x, *parameters):
    """The scans in the wrong order."""
    return reference(x.transpose(2, 3), *parameters).transpose(2, 3).roll(1, dims=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("op", ["ss2d", "selective_scan"])
def test_the_reference_passes(op, dtype):
    held = gate.Gate(op, dtype, CPU, gate.TINY_GATE_CASE)

    def scan(*args, **kwargs):
        return ops.selective_scan(*args, backend="reference", **kwargs)

    right = of_function(reference)
    right = Competitor(
        "right", False, {**right.prepare, "selective_scan": selective_scan_prepare(scan)}
    )
    assert held.why_wrong(right) is None


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x, *p: torch.rand_like(x) + 0 * sum(t.sum() for t in (x, *p)), "y is"),
        (transposed, "y is"),
        (lambda x, *p: reference(x, *p) * float("nan"), "y is inf"),
        (scaled_gradient, "the gradient of x is"),
        (lambda x, *p: reference(x, *p)[..., :-1], "y has shape"),
    ],
)
def test_wrong_competitors_are_told(function, what):
    held = gate.Gate("ss2d", torch.float32, CPU, gate.TINY_GATE_CASE)
    step = of_function(function)
    if what == "y has shape":
        sliced = step.prepare["ss2d"]

        def prepare(activations, parameters):
            done = sliced(activations, parameters)
            return Step(done.run, done.leaves, activations["dy"][..., :-1])

        step = Competitor("fake", False, {"ss2d": prepare})
    reason = held.why_wrong(step)
    assert reason is not None
    assert reason.startswith(what)


def test_plain_agrees_with_the_reference_in_float64():
    case = cases.Case(2, 6, 4, 3, 5)
    x = cases.ss2d_activations(case, torch.float64, CPU, seed=3)["x"]
    parameters = {name: t.double() for name, t in cases.ss2d_parameters(case, CPU).items()}
    expected = ops.ss2d(x, *parameters.values(), backend="reference")
    torch.testing.assert_close(plain.ss2d(x, parameters, torch.float64), expected)


def test_some_channels_are_those_channels_of_all():
    case = cases.Case(1, 8, 3, 5, 4)
    x = cases.ss2d_activations(case, torch.float64, CPU, seed=3)["x"]
    parameters = {name: t.double() for name, t in cases.ss2d_parameters(case, CPU).items()}
    channels = torch.tensor([0, 3, 7])
    some = plain.ss2d(x, parameters, torch.float64, channels)
    torch.testing.assert_close(some, plain.ss2d(x, parameters, torch.float64)[:, channels])


def test_the_full_size_is_checked_too():
    """Being right at small size is not enough: an error in a later step is found."""
    case = cases.Case(2, 8, 6, 5, 4)
    activations = cases.ss2d_activations(case, torch.float32, CPU, seed=0)
    parameters = cases.ss2d_parameters(case, CPU)
    spot = gate.spot_truth(activations, parameters, torch.float32)

    def last_row_lost(x, *p):
        y = reference(x, *p).clone()
        y[:, :, -1] = 0
        return y

    right = of_function(reference).prepare["ss2d"](activations, parameters)
    wrong = of_function(last_row_lost).prepare["ss2d"](activations, parameters)
    assert gate.why_wrong_at_size(right, spot) is None
    assert "at this size" in str(gate.why_wrong_at_size(wrong, spot))
