"""Triton kernels launched past Triton: what it compiled is kept, by all that it compiles anew for.

To look at every argument of every launch takes Triton longer than the kernels of a small image run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_KEPT: dict[tuple[Any, ...], Any] = {}
_NO_OPTIONS: Mapping[str, Any] = {}


def _kind(argument: Tensor | float | None) -> Any:
    """All that Triton may specialise on: with a larger key it compiles no more than before."""
    if type(argument) is int:
        return argument == 1, argument % 16 == 0, argument >> 31
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    return type(argument)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: tuple[Tensor | float | None, ...],
    constants: Mapping[str, Any],
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> None:
    """kernel[grid](*arguments, **constants, **options) on the current device.

    arguments: all that are not constants of the kernel, which come first; a flag is a constant.
    options: Triton's own, such as num_warps.
    """
    key = (
        kernel.fn,
        torch.cuda.current_device() if torch.cuda.is_initialized() else None,
        *map(_kind, arguments),
        *constants.items(),
        *options.items(),
    )
    compiled = _KEPT.get(key)
    if compiled is None:
        # None again from the interpreter, which compiles nothing.
        _KEPT[key] = kernel[grid](*arguments, **constants, **options)
        return
    names = kernel.arg_names[len(arguments) :]
    whole = (*grid, 1, 1)[:3]
    compiled[whole](*arguments, *[constants[name] for name in names])
