"""The published code's numbers for the SS2D core, with all gradients, in float64."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import Target, relative_error, with_gradients

import swin_umamba_ops as ops

FIXTURES = Path(__file__).parents[1] / "fixtures"
PARAMETERS = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


def _check(rule: ModuleType, name: str, backend: str) -> None:
    with np.load(FIXTURES / name) as golden:
        meta = json.loads(str(golden["meta"]))
        shapes = json.loads(str(golden["shapes"]))
        weights = rule.state({n: shapes[n] for n in PARAMETERS}, meta["salt"])
        shape, seed = golden["core.y"].shape, meta["seed"]
        inputs = {"u": rule.image(shape, seed + 2000), **weights}
        tensors = {n: torch.from_numpy(inputs[n]).double() for n in ("u", *PARAMETERS)}
        gradient = torch.from_numpy(rule.image(shape, seed + 3000))
        actual = with_gradients(partial(ops.ss2d, backend=backend), tensors, gradient)
        assert relative_error(actual["out"], torch.from_numpy(golden["core.y"])) < 1e-10
        for n in tensors:
            expected = torch.from_numpy(golden[f"core.grad.{n}"])
            assert relative_error(actual[f"d{n}"], expected) < 1e-10, n


@pytest.mark.parametrize("name", ["ss2d_5x7.npz", "ss2d_12x9.npz"])
def test_reference(rule: ModuleType, name: str) -> None:
    _check(rule, name, "reference")


@pytest.mark.parametrize("name", ["ss2d_5x7.npz", "ss2d_12x9.npz"])
def test_backends(rule: ModuleType, target: Target, name: str) -> None:
    reason = target.why_not(torch.float64, 16)
    if reason is not None or target.device != "cpu":
        pytest.skip(reason or "golden values are checked on the CPU")
    _check(rule, name, target.backend)
