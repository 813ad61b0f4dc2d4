"""torch.compile with the options that the models need."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compiled(model: nn.Module, *, fullgraph: bool = False, dynamic: bool | None = None) -> Any:
    """torch.compile(model) without inductor's own choice of memory layouts.

    The models already are channels_last. Inductor assumes that every 4-D map is (B, C, H, W),
    although the encoder's are (B, H, W, C), and would save them for the backward pass in its own
    layout, with copies before and after each of our ops. fullgraph, dynamic: as in torch.compile.
    For small batches CUDA graphs gain more: `swin_umamba.common.graphs`.
    """
    return torch.compile(
        model, fullgraph=fullgraph, dynamic=dynamic, options={"layout_optimization": False}
    )
