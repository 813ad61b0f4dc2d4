"""The interface of a competitor, and our own backends as competitors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import swin_umamba_ops as ops
from benchmarks.measuring.cases import PARAMETERS
from swin_umamba_ops import backends


@dataclass(frozen=True)
class Step:
    """One op on one set of inputs, in the competitor's preferred layout.

    run: the forward pass, returning the output in the gate's shape, ss2d (B, D, H, W), 1-D (B, D,
    L). leaves: the tensors whose gradients are taken, with the names and shapes of cases.py. dout:
    the gradient of the output; None for a step without backward. backward: for steps that run the
    backward pass directly, without autograd.
    """

    run: Callable[[], Tensor]
    leaves: Mapping[str, Tensor]
    dout: Tensor | None
    backward: Callable[[], object] | None = None

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.run()

    def forward_backward(self) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.run()
        grads = torch.autograd.grad(y, list(self.leaves.values()), self.dout)
        return y, dict(zip(self.leaves, grads, strict=True))


Prepare = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Step]
"""From activations and parameters (both as created by cases.py) to a step."""


@dataclass(frozen=True)
class Competitor:
    """Its name, what it can run by op name, and the origin of its code.

    missing: why it is unavailable here, and how to get it. source: for other implementations, the
    folder's commit or "installed".
    """

    name: str
    ours: bool
    prepare: Mapping[str, Prepare]
    missing: str | None = None
    source: str | None = None


def autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Autocast to x's dtype if it is 16-bit, otherwise no autocast."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return torch.autocast(x.device.type, x.dtype)
    return contextlib.nullcontext()


def leaf(t: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    return t.detach().clone(memory_format=memory_format).requires_grad_()


def _ss2d(backend: str) -> Prepare:
    def prepare(activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Step:
        x = leaf(activations["x"], torch.channels_last)
        dy = activations["dy"].contiguous(memory_format=torch.channels_last)
        own = {name: leaf(parameters[name]) for name in PARAMETERS}

        def run() -> Tensor:
            with autocast(x):
                return ops.ss2d(x, *own.values(), backend=backend)

        return Step(run, {"x": x, **own}, dy)

    return prepare


def _ss2d_scan(backend: str) -> Prepare:
    """Only the kernels: from projected inputs to merged y, and back from dy."""

    def prepare(activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Step:
        x = activations["x"].permute(0, 2, 3, 1).contiguous()
        weight, dt_weight, bias, A_logs, Ds = (parameters[name] for name in PARAMETERS)
        proj = torch.nn.functional.linear(x, weight.flatten(0, 1).to(x.dtype))
        arguments = (
            x,
            proj.unflatten(-1, weight.shape[:2]),
            dt_weight.to(x.dtype),
            bias,
            A_logs,
            Ds,
        )
        out_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        dy = activations["dy"].permute(0, 2, 3, 1).contiguous().to(out_dtype)
        scan = torch.ops.swin_umamba.ss2d_scan
        _, states = scan(*arguments, backend, out_dtype, True)

        def run() -> Tensor:
            y: Tensor = scan(*arguments, backend, out_dtype, False)[0]
            return y

        def backward() -> object:
            return torch.ops.swin_umamba.ss2d_scan_backward(dy, *arguments, states, backend)

        return Step(run, {}, None, backward)

    return prepare


SCAN_LEAVES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def selective_scan_prepare(function: Callable[..., Any]) -> Prepare:
    """For a function with mamba-ssm's signature."""

    def prepare(activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Step:
        leaves = {name: leaf(activations[name]) for name in SCAN_LEAVES}

        def run() -> Tensor:
            u, delta, A, B, C, D, bias = leaves.values()
            out: Tensor = function(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True)
            return out

        return Step(run, leaves, activations["dout"])

    return prepare


def ours(device: torch.device) -> list[Competitor]:
    """All our backends except the plain formulas; those that cannot run here with the reason."""
    found = []
    for name, reason in ops.available_backends().items():
        if not backends.BACKENDS[name].kernels:
            continue

        prepare = {
            "ss2d": _ss2d(name),
            "ss2d_scan": _ss2d_scan(name),
            "selective_scan": selective_scan_prepare(
                functools.partial(ops.selective_scan, backend=name)
            ),
        }
        if reason is None:
            reason = backends.load(name).why_unsupported(device, torch.float32, 16)
        found.append(Competitor(name, True, prepare, reason))
    return found
