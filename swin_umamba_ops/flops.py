"""Operation counts of the library ops, by the shapes of their arguments.

They serve torch.utils.flop_counter.FlopCounterMode, which counts operations, two to a
multiply-add. A scan is 9 operations per state and step and one more per step,
9 * B * L * D * N + B * L * D: the count that the papers print. They add it, as it is, to the
multiply-adds of everything else, so their totals are not half of FlopCounterMode's.
A backward counts twice its forward, as for a matrix product.
"""

from __future__ import annotations

from typing import Any

from swin_umamba_ops.scan_order import DIRECTIONS

Shape = tuple[int, ...]


def scan_flops(sequences: int, length: int, channels: int, states: int) -> int:
    """Of `sequences` independent scans; an exp counts one."""
    return sequences * length * channels * (9 * states + 1)


def ss2d_scan(
    x: Shape, proj: Shape, weight: Shape, bias: Shape, A_logs: Shape, *_: Any, **__: Any
) -> int:
    """The four scans, and the projection of dt_r to dt, which the op does itself."""
    batch, height, width, channels = x
    length = height * width
    projection = 2 * batch * DIRECTIONS * length * channels * weight[2]
    return projection + scan_flops(batch * DIRECTIONS, length, channels, A_logs[1])


def selective_scan(u: Shape, delta: Shape, A: Shape, *_: Any, **__: Any) -> int:
    batch, channels, length = u
    return scan_flops(batch, length, channels, A[1])


def addmm_(total: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """Of a product added in place."""
    return 2 * a[0] * a[1] * b[1]


def ss2d_scan_backward(dy: Shape, *inputs: Shape, **_: Any) -> int:
    return 2 * ss2d_scan(*inputs)


def selective_scan_backward(dout: Shape, dlast: Shape | None, *inputs: Shape, **_: Any) -> int:
    return 2 * selective_scan(*inputs)
