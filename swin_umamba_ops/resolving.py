"""From a backend's name to the backend, once a call, before any op: compiled programs see the
result alone, as a constant."""

from __future__ import annotations

from operator import index

import torch

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend


def _name(op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int) -> str:
    return backends.resolve(op, backend, device, dtype, size).name


# What torch.compiler.assume_constant_result sets; it would import the compiler, which takes longer
# than all of torch. Arguments must be constants then: index() makes a symbolic size a number.
_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def resolved(
    op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int = 0
) -> Backend:
    """The backend that serves such a call; refused as in `backends.resolve`."""
    return backends.BACKENDS[_name(op, backend, device, dtype, index(size))]
