"""Ranks and states for which a backend has no fast kernels, padded with zeros to those it has.

A rank or state whose weights are zero adds nothing to y, and the gradient of the padding drops
what it receives.
"""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend


def _sizes(
    module: str, device: torch.device, dtype: torch.dtype, D: int, N: int, R: int
) -> tuple[int, int]:
    sizes: tuple[int, int] = backends.load(module).ss2d_sizes(device, dtype, D, N, R)
    return sizes


_sizes._dynamo_marked_constant = True  # type: ignore[attr-defined]  # as in resolving.py


def pad_ranks_and_states(
    served: Backend,
    dtype: torch.dtype,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    A_logs: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three with as many ranks and states as the backend's kernels take the fastest.

    x_proj_weight: (4, R + 2N, D); dt_projs_weight: (4, D, R); A_logs: (4 * D, N); dtype: of x.
    """
    D, N, R = (index(n) for n in (A_logs.shape[0] // 4, A_logs.shape[1], dt_projs_weight.shape[2]))
    states, rank = _sizes(served.kernels["ss2d"], x_proj_weight.device, dtype, D, N, R)
    if (states, rank) == (N, R):
        return x_proj_weight, dt_projs_weight, A_logs
    parts = x_proj_weight.split((R, N, N), dim=1)
    wanted = (rank, states, states)
    rows = [
        F.pad(part, (0, 0, 0, n - part.shape[1])) for part, n in zip(parts, wanted, strict=True)
    ]
    return (
        torch.cat(rows, dim=1),
        F.pad(dt_projs_weight, (0, rank - R)),
        F.pad(A_logs, (0, states - N)),
    )
