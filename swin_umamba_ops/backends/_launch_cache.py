"""The launch cache of Triton kernels, by all that Triton recompiles for.

To look at every argument of every launch takes Triton longer than the kernels of a small image run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_COMPILED: dict[tuple[Any, ...], Any] = {}
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
) -> Any:
    """kernel[grid](*arguments, **constants, **options) on the current device; what Triton compiled
    for it, None of its interpreter.

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
    """launch() on one device with all but the pointers, which come first: what else there is to
    look at is looked at once."""

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
