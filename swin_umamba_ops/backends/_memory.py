"""Where raw addresses begin: what kernels may be given of tensors.

Kernels read memory as it lies, from a tensor's address on, 16 bytes at a time. A tensor that lies
otherwise, or whose values are not what its memory holds, is copied here, once, for every op.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes

_Optional = TypeVar("_Optional", Tensor, Tensor | None)


def addressable(t: _Optional) -> _Optional:
    """The tensor with its values in memory as they are, contiguous and aligned; a copy if needed.

    Values that are negated or conjugated on reading alone would reach kernels as they were before.
    """
    if t is None:
        return t
    if t.is_neg() or t.is_conj():
        t = t.resolve_conj().resolve_neg()
    t = t.contiguous()
    return t if t.data_ptr() % ALIGNMENT == 0 else t.clone(memory_format=torch.contiguous_format)


def all_addressable(*tensors: _Optional) -> tuple[_Optional, ...]:
    """`addressable` of each."""
    return tuple(
        [
            t
            if t is None or (t.is_contiguous() and t.data_ptr() % ALIGNMENT == 0 and not t.is_neg())
            else addressable(t)
            for t in tensors
        ]
    )
