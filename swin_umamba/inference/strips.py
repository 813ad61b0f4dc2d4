"""Strips of images on a device, each read and copied while the previous one is processed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
from torch import Tensor

from swin_umamba.data.prepare.slices import Floats, Slices

_WRITERS = 4  # threads that normalize a strip: a GPU waits for the first one


def strips(
    slices: Slices, spans: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    """The rows (N, C, end - begin, W) of each span (begin, end) on the device.

    spans: from top to bottom, each starting no later than the end of the previous one. Every row is
    read once; rows shared by spans stay on the device.
    """
    ends = [spans[0][0], *(end for _, end in spans)]
    fresh = _prefetched if device.type == "cuda" else _read
    held: Tensor | None = None
    pieces = fresh(slices, list(pairwise(ends)), device)
    for (begin, end), new in zip(spans, pieces, strict=True):
        old = new[:, :, :0] if held is None else held
        kept = old.shape[2] + new.shape[2] - (end - begin)
        held = torch.cat((old[:, :, kept:], new), 2)
        yield held


def _read(
    slices: Slices, pieces: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    for piece in pieces:
        rows = _empty(slices, piece, pinned=False)
        slices.fill(rows.numpy(), piece[0])
        yield rows.to(device)


def _empty(slices: Slices, piece: tuple[int, int], *, pinned: bool) -> Tensor:
    count, channels, _, width = slices.shape
    shape = (count, channels, piece[1] - piece[0], width)
    return torch.empty(shape, dtype=torch.float32, pin_memory=pinned)


def _write(slices: Slices, out: Floats, first: int, pool: ThreadPoolExecutor) -> None:
    """Fill the rows `out` (N, C, rows, W) from `first` on, parts of them in threads of the pool."""
    step = max(-(-out.shape[2] // _WRITERS), 1)

    def write(begin: int) -> None:
        slices.fill(out[:, :, begin : begin + step], first + begin)

    list(pool.map(write, range(0, out.shape[2], step)))


def _prefetched(
    slices: Slices, pieces: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    """Like `_read`, one piece ahead: threads normalize, and one copies on a stream of its own.

    Each piece must be copied before the next is requested, since two buffers alternate.
    """
    count, channels, _, width = slices.shape
    row = count * channels * width
    most = max(end - begin for begin, end in pieces)
    buffers = [torch.empty(row * most, dtype=torch.float32, device=device) for _ in range(2)]
    current, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    free = [current.record_event() for _ in buffers]

    def moved(number: int) -> tuple[Tensor, torch.cuda.Event]:
        rows = _empty(slices, pieces[number], pinned=True)
        _write(slices, rows.numpy(), pieces[number][0], writers)
        there = buffers[number % 2][: rows.numel()].view(rows.shape)
        with torch.cuda.stream(stream):
            stream.wait_event(free[number % 2])
            there.copy_(rows, non_blocking=True)
            return there, stream.record_event()

    try:
        with ThreadPoolExecutor(_WRITERS) as writers, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(moved, 0)
            for number in range(len(pieces)):
                rows, there = waiting.result()
                if number + 1 < len(pieces):
                    waiting = pool.submit(moved, number + 1)
                current.wait_event(there)
                yield rows
                free[number % 2] = current.record_event()
    finally:  # after an early stop, freed buffers may still be written to
        current.wait_stream(stream)
