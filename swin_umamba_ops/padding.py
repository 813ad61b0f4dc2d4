"""Pad ranks and states for which a backend has no fast kernels with zeros to a size for which it
has.

A rank or state with zero weights adds nothing to y, and the gradient of the padding is dropped.
"""

from __future__ import annotations

from operator import index

import torch
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.backends import Backend
from swin_umamba_ops.inputs import SS2DArguments
from swin_umamba_ops.torch_private import constant_result


@constant_result  # as in resolving.py
def _sizes(
    module: str, device: torch.device, dtype: torch.dtype, D: int, N: int, R: int
) -> tuple[int, int]:
    sizes: tuple[int, int] = backends.load(module).ss2d_sizes(device, dtype, D, N, R)
    return sizes


def pad_ranks_and_states(
    served: Backend, dtype: torch.dtype, arguments: SS2DArguments
) -> SS2DArguments:
    """The arguments padded to the numbers of ranks and states for which the kernels are fastest.

    dtype: of x after casting.
    """
    _, x_proj_weight, dt_projs_weight, _, A_logs, _ = arguments
    D, N, R = (index(n) for n in (A_logs.shape[0] // 4, A_logs.shape[1], dt_projs_weight.shape[2]))
    states, rank = _sizes(served.kernels["ss2d"], x_proj_weight.device, dtype, D, N, R)
    if (states, rank) == (N, R):
        return arguments
    parts = x_proj_weight.split((R, N, N), dim=1)
    wanted = (rank, states, states)
    rows = [
        F.pad(part, (0, 0, 0, n - part.shape[1])) for part, n in zip(parts, wanted, strict=True)
    ]
    return arguments._replace(
        x_proj_weight=torch.cat(rows, dim=1),
        dt_projs_weight=F.pad(dt_projs_weight, (0, rank - R)),
        A_logs=F.pad(A_logs, (0, states - N)),
    )
