"""Bands of logits being copied to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from swin_umamba.common.transfer import ToHost
from swin_umamba.inference.network import NonFiniteError


def on_host(
    bands: Iterator[tuple[int, Tensor]], finish: Callable[[Tensor], Tensor], name: str
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """First row and `finish(logits)` of each band of logits, as arrays.

    A band is awaited only after the next one has been requested, so that a GPU is never idle.
    Raises NonFiniteError, naming the network, for non-finite logits.
    """
    waiting: tuple[int, ToHost] | None = None
    for row, logits in bands:
        asked = row, ToHost(finish(logits), torch.isfinite(logits).all())
        if waiting is not None:
            yield _arrived(*waiting, name)
        waiting = asked
    if waiting is not None:
        yield _arrived(*waiting, name)


def _arrived(row: int, values: ToHost, name: str) -> tuple[int, npt.NDArray[Any]]:
    found, finite = values.read()
    if not finite:
        raise NonFiniteError(
            f"{name} gives NaN or infinite logits. If amp is on, switch it off; otherwise"
            " these weights are unusable: train again with a lower lr"
        )
    return row, found.numpy()
