"""The four visiting orders of SS2D, as index tensors and as plain functions on images.

Direction 0 is row-major, 1 column-major (down each column, left to right), 2 and 3 are 0 and 1
backwards. Kernels walk these orders directly; nothing here runs in a fused path.
"""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 4


def visiting_order(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Row-major positions in the order in which each direction visits them.

    Returns (4, L) int64: entry [k, l] is the position pi_k(l) = row * width + column.
    """
    rows = torch.arange(height * width, device=device)
    columns = rows.view(height, width).t().reshape(-1)
    return torch.stack([rows, columns, rows.flip(0), columns.flip(0)])


def step_of_position(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """The inverse of `visiting_order`: the step at which each direction visits a position.

    Returns (4, L) int64: entry [k, p] is the l with pi_k(l) = p.
    """
    # Row-major as (height, width), seen from column-major, is the transpose of (width, height).
    rows = torch.arange(height * width, device=device)
    columns = rows.view(width, height).t().reshape(-1)
    last = height * width - 1
    return torch.stack([rows, columns, last - rows, last - columns])


def cross_scan(x: Tensor) -> Tensor:
    """Unfold an image into its four sequences, as VMamba's CrossScan does.

    x: (B, D, H, W). Returns (B, 4, D, L) with L = H * W; ValueError for any other rank.
    """
    if x.dim() != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, D, H, W)")
    rows = x.flatten(2)
    columns = x.transpose(2, 3).flatten(2)
    return torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1)


def cross_merge(ys: Tensor) -> Tensor:
    """Scatter four sequences back to their positions and add them, as VMamba's CrossMerge does.

    ys: (B, 4, D, H, W): the last two axes hold each sequence in its own visiting order and define
    the image's shape. Returns (B, D, L), row-major; ValueError for any other shape.
    cross_merge(cross_scan(x).unflatten(-1, (H, W))) is 4 * x.flatten(2).
    """
    if ys.dim() != 5 or ys.shape[1] != DIRECTIONS:
        raise ValueError(f"ys has shape {tuple(ys.shape)}, expected (B, 4, D, H, W)")
    height, width = ys.shape[-2:]
    ys = ys.flatten(3)
    rows = ys[:, 0] + ys[:, 2].flip(-1)
    columns = ys[:, 1] + ys[:, 3].flip(-1)
    columns = columns.view(*columns.shape[:2], width, height)
    return rows + columns.transpose(2, 3).flatten(2)
