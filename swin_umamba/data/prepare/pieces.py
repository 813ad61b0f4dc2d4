"""Process large images in pieces on several cores, to measure them with little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from swin_umamba.common.devices import usable_cores

AT_ONCE = 1 << 20
"""Pixels per piece, unless one row or slice has more."""
_MAX_THREADS = 8

Piece = tuple[slice, slice]
_Found = TypeVar("_Found")


def each_piece(measure: Callable[[Piece], _Found], shape: Sequence[int]) -> list[_Found]:
    """The results of `measure` for each piece (slices, rows) of an image (Z, H, W), in order."""
    pieces = _pieces(shape)
    threads = min(len(pieces), usable_cores(), _MAX_THREADS)
    if threads == 1:
        return [measure(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(measure, pieces))


def _pieces(shape: Sequence[int]) -> list[Piece]:
    axis = int(np.argmax(shape[:2]))
    length = shape[axis]
    step = max(AT_ONCE * length // int(np.prod(shape)), 1)
    parts = [slice(first, min(first + step, length)) for first in range(0, length, step)]
    whole = slice(None)
    return [(part, whole) if axis == 0 else (whole, part) for part in parts]
