"""Checks for every caller of an op, including torch.ops: kernels do not validate their inputs.

Only on shapes and dtypes, so that nothing waits for a device. (_define.py compares devices.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MAX_REMEMBERED = 4096


def remembered(check: Callable[..., None]) -> Callable[..., None]:
    """A check of tensors' shapes and dtypes, and of numbers, that remembers combinations that
    passed: in a small model's step the checks would take as long as the kernels."""
    passed: set[tuple[Any, ...]] = set()

    @functools.wraps(check)
    def run(*values: Any) -> None:
        key = tuple([(t.shape, t.dtype) if isinstance(t, Tensor) else t for t in values])
        if key not in passed:
            check(*values)
            if len(passed) >= _MAX_REMEMBERED:
                passed.clear()
            passed.add(key)

    return run


def has_shape(name: str, t: Tensor, *expected: int | str) -> None:
    """ValueError unless t has these sizes; a letter stands for any nonzero size, "B" for any."""
    shape = t.shape
    if len(shape) == len(expected):
        for size, wanted in zip(shape, expected, strict=True):
            if size != wanted and (type(wanted) is int or (size == 0 and wanted != "B")):
                break
        else:
            return
    sizes = ", ".join(str(n) for n in expected)
    raise ValueError(f"{name} has shape {tuple(shape)}, expected ({sizes})")


def has_channels(name: str, t: Tensor) -> None:
    """ValueError unless t has a nonempty last axis."""
    if t.dim() == 0 or t.shape[-1] == 0:
        raise ValueError(f"{name} has shape {tuple(t.shape)}, expected (..., C) with C > 0")


def is_shape(name: str, t: Tensor, shape: tuple[int, ...]) -> None:
    """ValueError unless t has exactly these sizes."""
    if t.shape != shape:
        raise ValueError(f"{name} has shape {tuple(t.shape)}, expected {tuple(shape)}")


def same_dtype(
    dtype: torch.dtype, names: tuple[str, ...], tensors: tuple[Tensor | None, ...]
) -> None:
    """TypeError unless all tensors have this dtype."""
    for name, t in zip(names, tensors, strict=True):
        if t is not None and t.dtype != dtype:
            raise TypeError(f"{name} has dtype {t.dtype}, expected {dtype}")
