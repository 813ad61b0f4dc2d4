"""The scans written once more from their formulas, independent of the package, for the gate.

Exponentials are computed for all steps at once; only the recurrence runs step by step. With dtype
float64 everything is float64: the ground truth. With a narrower dtype, projections are rounded to
it and the recurrence runs in float32, like plain eager code under autocast: the error that a
correct fast version may have.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring.cases import DIRECTIONS


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """u, delta (B, D, L); A (D, N); B, C (B, G, N, L); D, delta_bias (D,): out (B, D, L).

    softplus(delta + delta_bias) is the step. Computes in the tensors' one dtype.
    """
    batch, channels = u.shape[:2]
    per_group = channels // B.shape[1]
    # Steps first, so that each is one block of memory: (L, B, D) and (L, B, D, N).
    u, delta = (t.permute(2, 0, 1).contiguous() for t in (u, delta))
    B, C = (t.repeat_interleave(per_group, dim=1).permute(3, 0, 1, 2) for t in (B, C))
    dt = F.softplus(delta + delta_bias)
    decay = torch.exp(dt.unsqueeze(-1) * A)
    drive = (dt * u).unsqueeze(-1) * B
    h = u.new_zeros(batch, channels, A.shape[1])
    states = []
    # unbind, not indexing: the gradient of an index is a whole zero tensor per step.
    for a, b in zip(decay.unbind(), drive.unbind(), strict=True):
        h = torch.addcmul(b, a, h)
        states.append(h)
    return ((C * torch.stack(states)).sum(-1) + D * u).permute(1, 2, 0)


def rounded_selective_scan(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """`selective_scan` for inputs of any dtype, computed in float64 or, for others, in float32."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    return selective_scan(*(inputs[name].to(compute) for name in names)).to(dtype)


def _sequences(x: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, 4, D, L): by rows, by columns, and both backwards."""
    forward = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], dim=1)
    return torch.cat([forward, forward.flip(-1)], dim=1)


def _merged(ys: Tensor, height: int, width: int) -> Tensor:
    """(B, 4, D, L) -> (B, D, H, W): every sequence back at its positions, summed."""
    two = ys[:, :2] + ys[:, 2:].flip(-1)
    rows: Tensor = two[:, 0].unflatten(-1, (height, width))
    columns: Tensor = two[:, 1].unflatten(-1, (width, height))
    return rows + columns.transpose(-1, -2)


def ss2d(
    x: Tensor,
    parameters: Mapping[str, Tensor],
    dtype: torch.dtype,
    channels: Tensor | None = None,
) -> Tensor:
    """The four-direction scan.

    x (B, D, H, W) and the layer's parameters: y (B, D, H, W), float64 or float32.

    channels: indices of the channels to compute, which are independent of each other; all by
    default.
    """
    compute = torch.float64 if dtype == torch.float64 else torch.float32

    def rounded(t: Tensor) -> Tensor:
        return t.to(dtype).to(compute)

    D, height, width = x.shape[1:]
    keep = torch.arange(D, device=x.device) if channels is None else channels
    xs = _sequences(rounded(x))
    weight = parameters["dt_projs_weight"]
    N, R = parameters["A_logs"].shape[1], weight.shape[2]
    projected = rounded(torch.einsum("bkdl,kcd->bkcl", xs, rounded(parameters["x_proj_weight"])))
    dt_r, Bs, Cs = projected.split([R, N, N], dim=2)
    delta = rounded(torch.einsum("bkrl,kdr->bkdl", dt_r, rounded(weight[:, keep])))

    def own(name: str) -> Tensor:
        each: Tensor = parameters[name].to(compute).unflatten(0, (DIRECTIONS, D))
        return each[:, keep].flatten(0, 1)

    ys = selective_scan(
        xs[:, :, keep].flatten(1, 2),
        delta.flatten(1, 2),
        -torch.exp(own("A_logs")),
        Bs,
        Cs,
        own("Ds"),
        parameters["dt_projs_bias"].to(compute)[:, keep].flatten(),
    )
    return _merged(ys.unflatten(1, (DIRECTIONS, -1)), height, width)
