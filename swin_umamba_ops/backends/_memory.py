"""The boundary to raw addresses: requirements on tensors that kernels access.

Kernels read memory directly from a tensor's address, 16 bytes at a time. A tensor with another
layout, or whose values differ from its memory, is copied once, for every op, by ops/_define.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes


def is_addressable(t: Tensor) -> bool:
    """Whether kernels may read a tensor's memory directly.

    Lazily negated or conjugated values would reach kernels without the negation or conjugation.
    """
    return (
        t.is_contiguous() and t.data_ptr() % ALIGNMENT == 0 and not t.is_neg() and not t.is_conj()
    )


def addressable_image(t: Tensor) -> Tensor:
    """`addressable` for kernels that read contiguous or channels_last images at any address."""
    last = t.is_contiguous(memory_format=torch.channels_last)
    return t if (t.is_contiguous() or last) and not t.is_neg() else addressable(t)


def in_rows(t: Tensor) -> Tensor:
    """t (..., C) itself if its positions are evenly spaced, like some of a larger map's channels,
    otherwise contiguous."""
    strides = [1, t.stride(-2) if t.ndim > 1 else 0]
    for size in t.shape[-2:0:-1]:
        strides.append(strides[-1] * size)
    return t if t.stride() == tuple(strides[t.ndim - 1 :: -1]) else t.contiguous()


def addressable_rows(t: Tensor) -> tuple[Tensor, int]:
    """`in_rows` for kernels that read at any address, and the distance from one position to the
    next."""
    t = in_rows(t.resolve_conj().resolve_neg())
    return t, t.stride(-2) if t.ndim > 1 else t.shape[-1]


def addressable(t: Tensor) -> Tensor:
    """The tensor with its values materialised, contiguous and aligned; a copy if needed."""
    t = t.resolve_conj().resolve_neg().contiguous()
    return t if is_addressable(t) else t.clone(memory_format=torch.contiguous_format)
