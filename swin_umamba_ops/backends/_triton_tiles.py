"""How the Triton backend partitions a scan: states and channels of a program, chunks of a split;
and the alignment of its memory accesses."""

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
    """States and channels of a program: in a lane's registers (H) and across the lanes (L)."""

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
    """Tile with registers for about 8 states and channels or, in the backward pass, for a segment's
    decays and states without spills; more channels in the interpreter, where only the number of
    operations counts."""
    states = triton.next_power_of_2(N)
    NL = max(min(4, states), states // 8)
    NH, DL = states // NL, _LANES // NL
    DH = min(8, 128 // NH) if interpreted else max(1, min(4, 8 // NH))
    U = (2 if NH <= 4 else 1) if backwards else min(4, 16 // NH)
    return Tile(NH, NL, DH, DL, U)


@functools.cache
def wide_tile(N: int, interpreted: bool) -> Tile:
    """Forward pass: more channels share the cost of a step, and give a warp more work while it
    waits, but halve the number of programs."""
    tile = split_tile(N, interpreted)
    narrow = tile.channels == scan_tile(N, False, interpreted).channels
    return tile if narrow else replace(tile, U=max(1, tile.U // 2))


@functools.cache
def split_tile(N: int, interpreted: bool) -> Tile:
    """The pass over splits needs few other registers: more channels share the cost of a step."""
    tile = scan_tile(N, False, interpreted)
    return replace(tile, DH=max(tile.DH, min(4, 16 // tile.NH)))


@functools.cache
def split_chunks(programs: int, chunks: int, slots: int, backwards: bool) -> int:
    """Chunks per split, minimizing the time until the last program finishes.

    Many small programs balance better among the `slots` that run at a time, but each one folds the
    contributions of those before it, and finding these takes a separate pass.
    """
    own_pass = 0.2 if backwards else 0.6  # as a fraction of a chunk's time, by instruction count
    fold = 0.05

    def cost(length: int) -> float:
        splits = -(-chunks // length)
        rounds = -(-programs * splits // slots)
        return rounds * (length if splits == 1 else length * (1 + own_pass) + splits * fold)

    lengths = {-(-chunks // splits) for splits in range(1, min(chunks, _MAX_SPLITS) + 1)}
    return min(sorted(lengths, reverse=True), key=cost) if slots else chunks


def alignment(*tensors: Tensor | None) -> int:
    """16 if all addresses are multiples of 16 bytes, otherwise 0."""
    return 16 if all(t is None or t.data_ptr() % 16 == 0 for t in tensors) else 0


def common(alignment: int, *sizes: int) -> int:
    """The alignment of consecutive rows of these sizes; 0: none."""
    return math.gcd(alignment, *sizes) if alignment else 0
