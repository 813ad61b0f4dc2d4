"""Where raw addresses begin: what kernels may be given of tensors.

Kernels read memory as it lies, from a tensor's address on, 16 bytes at a time. A tensor that lies
otherwise, or whose values are not what its memory holds, is copied, once, for every op: by
ops/_define.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes


def is_addressable(t: Tensor) -> bool:
    """Whether kernels may read a tensor as it lies.

    Values that are negated or conjugated on reading alone would reach kernels as they were before.
    """
    return (
        t.is_contiguous() and t.data_ptr() % ALIGNMENT == 0 and not t.is_neg() and not t.is_conj()
    )


def addressable_image(t: Tensor) -> Tensor:
    """`addressable` for kernels that read images contiguous or channels last, at any address."""
    last = t.is_contiguous(memory_format=torch.channels_last)
    return t if (t.is_contiguous() or last) and not t.is_neg() else addressable(t)


def addressable(t: Tensor) -> Tensor:
    """The tensor with its values in memory as they are, contiguous, aligned; a copy if needed."""
    t = t.resolve_conj().resolve_neg().contiguous()
    return t if is_addressable(t) else t.clone(memory_format=torch.contiguous_format)
