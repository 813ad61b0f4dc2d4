"""How the Triton backend cuts a scan: states and channels of a program, chunks of a split; and what
its accesses are aligned to."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import triton
from torch import Tensor

_LANES = 32
_MAX_SPLITS = 64


@dataclass(frozen=True)
class Tile:
    """States and channels of a program: in a lane's registers (H) and over the lanes (L)."""

    NH: int
    NL: int
    DH: int
    DL: int
    U: int

    @property
    def channels(self) -> int:
        return self.DH * self.DL


@functools.cache
def scan_tile(N: int, backwards: bool, interpreted: bool) -> Tile:
    """Registers for about 8 states and channels, and backwards for a segment's decays and states,
    none spilled; where the interpreter runs, and only the number of operations counts, more
    channels."""
    states = triton.next_power_of_2(N)
    NL = max(min(4, states), states // 8)
    NH, DL = states // NL, _LANES // NL
    DH = min(8, 128 // NH) if interpreted else max(1, min(4, 8 // NH))
    U = (2 if NH <= 4 else 1) if backwards else min(4, 16 // NH)
    return Tile(NH, NL, DH, DL, U)


@functools.cache
def wide_tile(N: int, interpreted: bool) -> Tile:
    """Forwards: more channels share the cost of a step, and give a warp more to do while it waits,
    but make half as many programs."""
    tile = split_tile(N, interpreted)
    narrow = tile.channels == scan_tile(N, False, interpreted).channels
    return tile if narrow else replace(tile, U=max(1, tile.U // 2))


@functools.cache
def split_tile(N: int, interpreted: bool) -> Tile:
    """The splits' pass keeps little else: more channels share the cost of a step."""
    tile = scan_tile(N, False, interpreted)
    return replace(tile, DH=max(tile.DH, min(4, 16 // tile.NH)))


@functools.cache
def split_chunks(programs: int, chunks: int, slots: int, backwards: bool) -> int:
    """Chunks in a split, by what the last program to end has waited for and done.

    Many small programs share out more evenly among the `slots` that run at a time, but each folds
    what those before it add, and to find that takes a pass of its own.
    """
    own_pass = 0.2 if backwards else 0.6  # of a chunk's time; by instructions
    fold = 0.05

    def cost(length: int) -> float:
        splits = -(-chunks // length)
        rounds = -(-programs * splits // slots)
        return rounds * (length if splits == 1 else length * (1 + own_pass) + splits * fold)

    lengths = {-(-chunks // splits) for splits in range(1, min(chunks, _MAX_SPLITS) + 1)}
    return min(sorted(lengths, reverse=True), key=cost) if slots else chunks


def alignment(*tensors: Tensor | None) -> int:
    """16: all begin at multiples of so many bytes; 0: not."""
    return 16 if all(t is None or t.data_ptr() % 16 == 0 for t in tensors) else 0


def common(alignment: int, *sizes: int) -> int:
    """What rows of these sizes that follow each other are aligned to; 0: to nothing."""
    return math.gcd(alignment, *sizes) if alignment else 0
