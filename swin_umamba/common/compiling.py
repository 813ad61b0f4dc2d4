"""torch.compile as it suits the models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compiled(model: nn.Module, *, fullgraph: bool = False, dynamic: bool | None = None) -> Any:
    """torch.compile(model) without inductor's own choice of memory layouts.

    The models are in channels_last as they are. Inductor takes every map of four axes for
    (B, C, H, W), also those of the encoder, (B, H, W, C), and would keep them for the backward pass
    in an order of its own: copies before and after each of our ops. fullgraph, dynamic: as of
    torch.compile. For small batches CUDA graphs gain more: `swin_umamba.common.graphs`.
    """
    return torch.compile(
        model, fullgraph=fullgraph, dynamic=dynamic, options={"layout_optimization": False}
    )
