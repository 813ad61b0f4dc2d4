"""Resolve a backend's name once per call, before any op: compiled programs see only the result, as
a constant."""

from __future__ import annotations

from operator import index

import torch

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.torch_private import constant_result


@constant_result
def _name(op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int) -> str:
    return backends.resolve(op, backend, device, dtype, size).name


def resolved(
    op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int = 0
) -> Backend:
    """The backend for such a call; refused as in `backends.resolve`."""
    # Arguments of a constant must be constant too: index() turns a symbolic size into a number.
    return backends.BACKENDS[_name(op, backend, device, dtype, index(size))]
