"""Autocast as the ops see it: which dtype it wants of an input, and how to do without it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast wants x, or None outside of autocast.

    Devices are known by name: torch refuses to be asked of "meta", and its compiler does not
    trace the question which devices have autocast.
    """
    kind = x.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def autocast_off(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off where x is, if it is on at all: an exported graph cannot be saved with it."""
    if autocast_dtype(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
