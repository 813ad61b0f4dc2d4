"""Correctness first: every competitor is checked against float64 before it is timed.

The bound is twice the error of plain eager code with the same rounding (see plain.py), plus a small
floor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.measuring import cases
from benchmarks.measuring.cases import PARAMETERS, Case
from benchmarks.ops import plain
from benchmarks.ops.competitors import SCAN_LEAVES, Competitor, Step

# Longer than any competitor's chunk of 2048 steps, odd in both directions, small enough for a loop.
GATE_CASE = Case(1, 32, 47, 53, group="gate")
TINY_GATE_CASE = Case(2, 16, 5, 7, 4, group="gate")
_CHANNELS_CHECKED = 2
_FLOOR = 1e-5  # approximate exponentials, and another order of summation


def relative_error(out: Tensor, truth: Tensor) -> float:
    """||out - truth|| / ||truth||, infinite if out contains NaN."""
    out = out.detach().to("cpu", torch.float64)
    error = float(torch.linalg.vector_norm(out - truth) / torch.linalg.vector_norm(truth))
    return error if error == error else float("inf")


Expected = dict[str, tuple[Tensor, float]]
"""name -> (ground truth, largest allowed error); y is the output, all others are gradients."""


class Gate:
    """The ground truth of one op, dtype and number of states, computed once."""

    def __init__(self, op: str, dtype: torch.dtype, device: torch.device, case: Case) -> None:
        self.op, self.dtype, self.device, self.case = op, dtype, device, case
        self.expected = self._expected()

    def _inputs(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        cpu = torch.device("cpu")
        activations = cases.MAKERS[self.op](self.case, self.dtype, cpu, 1)
        parameters = cases.ss2d_parameters(self.case, cpu)
        return (
            {name: t.to(device) for name, t in activations.items()},
            {name: t.to(device) for name, t in parameters.items()},
        )

    def _expected(self) -> Expected:
        activations, parameters = self._inputs(torch.device("cpu"))
        results = []
        for dtype in (torch.float64, self.dtype):
            results.append(_plain_step(self.op, activations, parameters, dtype))
        truth, eager = results
        return {
            name: (value, 2 * relative_error(eager[name], value) + _FLOOR)
            for name, value in truth.items()
        }

    def why_wrong(self, competitor: Competitor) -> str | None:
        """None if the competitor's output and gradients are right, otherwise what is off and by how
        much."""
        step = competitor.prepare[self.op](*self._inputs(self.device))
        y, grads = step.forward_backward()
        found = {"y": step.forward(), "y with gradients": y, **grads}
        for name, value in found.items():
            truth, allowed = self.expected["y" if name.startswith("y ") else name]
            if value.shape != truth.shape:
                return f"{name} has shape {tuple(value.shape)}, not {tuple(truth.shape)}"
            error = relative_error(value, truth)
            if error > allowed:
                what = name if name.startswith("y") else f"the gradient of {name}"
                return f"{what} is {error:.1e} from float64, allowed {allowed:.1e}"
        return None


def _plain_step(
    op: str, activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The output and gradients by plain.py, in float64 or as eager code in dtype computes them."""
    wide = dtype == torch.float64
    names: tuple[str, ...] = ("x", *PARAMETERS)
    source = {**activations, **parameters}
    dout = activations["dout" if op == "selective_scan" else "dy"]
    if op == "selective_scan":
        names, source = SCAN_LEAVES, dict(activations)
    leaves = {
        name: source[name].to(torch.float64 if wide else source[name].dtype).requires_grad_()
        for name in names
    }
    if op == "selective_scan":
        y = plain.rounded_selective_scan(leaves, dtype)
    else:
        y = plain.ss2d(leaves["x"], leaves, dtype)
    grads = torch.autograd.grad(y, list(leaves.values()), dout.to(y.dtype))
    return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}


def spot_truth(
    activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor, float]:
    """For ss2d at full size: some channels, their true values in the first image, the bound."""
    x = activations["x"][:1].cpu()
    on_cpu = {name: t.cpu() for name, t in parameters.items()}
    step = max(1, x.shape[1] // _CHANNELS_CHECKED)
    channels = torch.arange(0, x.shape[1], step)[:_CHANNELS_CHECKED]
    wide = {name: t.double() for name, t in on_cpu.items()}
    truth = plain.ss2d(x.double(), wide, torch.float64, channels)
    eager = plain.ss2d(x, on_cpu, dtype, channels)
    return channels, truth, 2 * relative_error(eager, truth) + _FLOOR


def why_wrong_at_size(step: Step, spot: tuple[Tensor, Tensor, float]) -> str | None:
    """As `Gate.why_wrong`, for the forward pass of ss2d at the timed size."""
    channels, truth, allowed = spot
    error = relative_error(step.forward()[:1, channels], truth)
    if error > allowed:
        return f"y is {error:.1e} from float64 at this size, allowed {allowed:.1e}"
    return None
