"""Where raw addresses begin: what kernels may be given of tensors.

Kernels read memory as it lies, from a tensor's address on, 16 bytes at a time. A tensor that lies
otherwise, or whose values are not what its memory holds, is copied here, once, for every op.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes

_Optional = TypeVar("_Optional", Tensor, Tensor | None)
_Record = TypeVar("_Record", bound=tuple[Any, ...])


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


def all_addressable(inputs: _Record) -> _Record:
    """A tuple, such as a record of inputs, with `addressable` of each tensor: itself, unless one
    has to be copied."""
    for t in inputs:
        if isinstance(t, Tensor) and not (
            t.is_contiguous() and t.data_ptr() % ALIGNMENT == 0 and not t.is_neg()
        ):
            break
    else:
        return inputs
    made = [addressable(t) if isinstance(t, Tensor) else t for t in inputs]
    return type(inputs)(made) if type(inputs) is tuple else type(inputs)(*made)
