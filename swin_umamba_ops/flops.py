"""Operation counts of the library ops, from the shapes of their arguments.

For torch.utils.flop_counter.FlopCounterMode, which counts two operations per multiply-add. A scan
has 9 operations per state and step plus one per step, 9 * B * L * D * N + B * L * D: the count
printed in the papers. The papers add it unchanged to the multiply-adds of everything else, so their
totals are not half of FlopCounterMode's. A backward pass counts as twice its forward pass, as for a
matrix product.
"""

from __future__ import annotations

from typing import Any

from swin_umamba_ops.scan_order import DIRECTIONS

Shape = tuple[int, ...]


def scan_flops(sequences: int, length: int, channels: int, states: int) -> int:
    """For `sequences` independent scans; an exp counts as one operation."""
    return sequences * length * channels * (9 * states + 1)


def ss2d_scan(
    x: Shape, proj: Shape, weight: Shape, bias: Shape, A_logs: Shape, *_: Any, **__: Any
) -> int:
    """For the four scans, and the projection of dt_r to dt, which is part of the op."""
    batch, height, width, channels = x
    length = height * width
    projection = 2 * batch * DIRECTIONS * length * channels * weight[2]
    return projection + scan_flops(batch * DIRECTIONS, length, channels, A_logs[1])


def selective_scan(u: Shape, delta: Shape, A: Shape, *_: Any, **__: Any) -> int:
    batch, channels, length = u
    return scan_flops(batch, length, channels, A[1])


def addmm_(total: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """For a product that is added in place."""
    return 2 * a[0] * a[1] * b[1]


def ss2d_scan_backward(dy: Shape, *inputs: Shape, **_: Any) -> int:
    return 2 * ss2d_scan(*inputs)


def selective_scan_backward(dout: Shape, dlast: Shape | None, *inputs: Shape, **_: Any) -> int:
    return 2 * selective_scan(*inputs)
