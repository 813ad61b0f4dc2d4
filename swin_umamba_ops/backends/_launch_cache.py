"""The launch cache of Triton kernels, keyed by everything that Triton specializes on.

Triton's own inspection of all arguments at every launch takes longer than the kernels of a small
image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_COMPILED: dict[tuple[Any, ...], Any] = {}
_NO_OPTIONS: Mapping[str, Any] = {}


def _kind(argument: Tensor | float | None) -> Any:
    """Everything that Triton may specialize on: a larger key causes no additional compilation."""
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
) -> Any:
    """kernel[grid](*arguments, **constants, **options) on the current device; returns what Triton
    compiled, or None in its interpreter.

    arguments: everything that is not a constant of the kernel, in order; flags are constants.
    options: Triton's own, such as num_warps.
    """
    key = (
        kernel.fn,
        torch.cuda.current_device() if torch.cuda.is_initialized() else None,
        *map(_kind, arguments),
        *constants.items(),
        *options.items(),
    )
    compiled = _COMPILED.get(key)
    if compiled is None:
        compiled = _COMPILED[key] = kernel[grid](*arguments, **constants, **options)
        return compiled
    names = kernel.arg_names[len(arguments) :]
    compiled[_whole(grid)](*arguments, *[constants[name] for name in names])
    return compiled


def _whole(grid: tuple[int, ...]) -> tuple[int, ...]:
    return (*grid, 1, 1)[:3]


class Launch:
    """launch() on one device with all arguments except the pointers, which come first; everything
    else is inspected only once."""

    def __init__(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        numbers: tuple[float, ...],
        constants: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._kernel, self._grid, self._numbers = kernel, grid, numbers
        self._constants, self._options = constants, options
        self._starts: dict[tuple[Any, ...], Any] = {}
        self._behind: tuple[Any, ...] = ()

    def __call__(self, *pointers: Tensor | None) -> None:
        kinds = tuple(map(_kind, pointers))
        start = self._starts.get(kinds)
        if start is not None:
            start(*pointers, *self._behind)
            return
        arguments = (*pointers, *self._numbers)
        compiled = launch(self._kernel, self._grid, arguments, self._constants, self._options)
        if compiled is not None:
            names = self._kernel.arg_names[len(arguments) :]
            self._behind = (*self._numbers, *[self._constants[name] for name in names])
            self._starts[kinds] = compiled[_whole(self._grid)]
