"""The device on which kernels are launched: the current one, whichever tensors they get."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a tensor's device the current one, if it has one that is not current yet."""
    if device.type == "cpu":
        return nullcontext()
    module = torch.cuda if device.type == "cuda" else torch.get_device_module(device)
    if device.index == module.current_device():
        return nullcontext()
    context: AbstractContextManager[Any] = module.device(device)
    return context
