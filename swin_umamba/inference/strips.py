"""Strips of images on a device, each read and copied while the one before it is worked on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch
from torch import Tensor

from swin_umamba.data.prepare.slices import Slices


def strips(
    slices: Slices, spans: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    """The rows (N, C, end - begin, W) of each span (begin, end) on the device.

    spans: from top to bottom, each beginning no later than the one before it ends. Every row is
    read once; rows that spans share stay on the device.
    """
    ends = [spans[0][0], *(end for _, end in spans)]
    fresh = _prefetched if device.type == "cuda" else _read
    held: Tensor | None = None
    pieces = fresh(slices, list(pairwise(ends)), device)
    for (begin, end), new in zip(spans, pieces, strict=True):
        if held is None:
            held = new
        else:
            kept = held.shape[2] + new.shape[2] - (end - begin)
            held = torch.cat((held[:, :, kept:], new), 2)
        yield held


def _read(
    slices: Slices, pieces: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    for piece in pieces:
        yield _filled(slices, piece, pinned=False).to(device)


def _filled(slices: Slices, piece: tuple[int, int], *, pinned: bool) -> Tensor:
    count, channels, _, width = slices.shape
    begin, end = piece
    rows = torch.empty((count, channels, end - begin, width), pin_memory=pinned)
    slices.fill(rows.numpy(), begin)
    return rows


def _prefetched(
    slices: Slices, pieces: Sequence[tuple[int, int]], device: torch.device
) -> Iterator[Tensor]:
    """As `_read`, one piece ahead: a thread normalises and copies on a stream of its own."""
    stream = torch.cuda.Stream(device)

    def moved(piece: tuple[int, int]) -> tuple[Tensor, torch.cuda.Event]:
        rows = _filled(slices, piece, pinned=True)
        with torch.cuda.stream(stream):
            there = rows.to(device, non_blocking=True)
            event = torch.cuda.Event()
            event.record(stream)
        return there, event

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(moved, pieces[0])
        for following in (*pieces[1:], None):
            rows, event = waiting.result()
            if following is not None:
                waiting = pool.submit(moved, following)
            current = torch.cuda.current_stream(device)
            current.wait_event(event)
            rows.record_stream(current)
            yield rows
