"""Autocast support for the ops: which dtype it requests for an input, and how to disable it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast would cast x, or None outside of autocast.

    Devices are matched by name: torch raises when asked about "meta", and its compiler does not
    trace the query for devices with autocast.
    """
    kind = x.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def autocast_off(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on x's device if it is on: an exported graph cannot be saved with it."""
    if autocast_dtype(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
