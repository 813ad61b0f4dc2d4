"""Adapt a first convolution to another number of image channels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

FirstLayer = Literal["mean", "sum", "repeat", "drop"]
WAYS: tuple[str, ...] = get_args(FirstLayer)
"""How filters (E, C, h, w) become (E, N, h, w): `mean`, every channel gets the sum over the old
ones divided by N, so that a gray image gives the same result; `sum`, without the division;
`repeat`, the old channels cyclically, times C / N; `drop`, not loaded, as in the original
implementation."""


def adapted(weight: Tensor, channels: int, way: str) -> Tensor:
    """weight (E, C, h, w) for `channels` image channels, by `mean`, `sum` or `repeat`."""
    C = weight.shape[1]
    if way == "repeat":
        return weight[:, torch.arange(channels) % C] * (C / channels)
    total = weight.sum(1, keepdim=True).expand(-1, channels, -1, -1)
    return (total / channels if way == "mean" else total).contiguous()


def check_way(way: str) -> None:
    if way not in WAYS:
        raise ValueError(f"first_layer: got {way!r}, expected one of {', '.join(WAYS)}")
