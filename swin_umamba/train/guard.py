"""Steps whose loss or gradient is not finite."""

from __future__ import annotations

import math

from torch import Tensor, nn


def not_finite(model: nn.Module, loss: float, norm: Tensor | None) -> str | None:
    """What is not finite: "the loss", or the first parameter whose gradient is not; None if all is.

    norm: of the whole gradient, None before it exists.
    """
    if not math.isfinite(loss):
        return "the loss"
    if norm is None or bool(norm.isfinite()):
        return None
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return f"the gradient of {name}"
    return "the norm of the gradient"
