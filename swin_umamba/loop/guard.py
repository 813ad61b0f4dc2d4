"""Steps with a non-finite loss or gradient, and where it originated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba.loop.sharding import gathered
from swin_umamba.runs.log import Record


def explain_skip(
    record: Record, model: nn.Module, forward: Callable[[], Any], scaler: torch.amp.GradScaler
) -> None:
    """Record in a step's log entry where its non-finite values originated.

    forward: as in `culprit_of_loss`. scaler: "overflow" is recorded if fp16's scale can still be
    lowered.
    """
    if math.isfinite(record["loss"]):
        record["skipped"] = culprit_of_gradient(model)
        record["overflow"] = scaler.is_enabled() and scaler.get_scale() > 1
        record["gradient"] = None
        return
    record["skipped"] = culprit_of_loss(model, forward)
    record["loss"] = record["gradient"] = None


def culprit_of_gradient(model: nn.Module) -> str:
    """The parameter nearest to the loss whose gradient is not finite, as text.

    Later gradients of the backward pass are usually affected by it. Parameters are in registration
    order, which is roughly that of the forward pass.
    """
    spoilt = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(gathered(parameter.grad).isfinite().all())
    ]
    if not spoilt:
        return "the norm of the gradient"
    others = f" and of {len(spoilt) - 1} parameters before it" if len(spoilt) > 1 else ""
    return f"the gradient of {spoilt[-1]}{others}"


def culprit_of_loss(model: nn.Module, forward: Callable[[], Any]) -> str:
    """The first module with a non-finite output in a forward pass, as text.

    forward: runs the model again on the same input. Gradients and random state do not change.
    """
    found: list[str] = []
    handles = [
        module.register_forward_hook(_telling(name, found))
        for name, module in model.named_modules()
        if name
    ]
    try:
        devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
        with torch.random.fork_rng(devices), torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return f"the output of {found[0]}" if found else "the loss"


def _telling(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def tell(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(bool(part.isfinite().all()) for part in _tensors(output)):
            found.append(name)

    return tell


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in _tensors(part)]
    return []
