"""An exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

_Model = TypeVar("_Model", bound=nn.Module)


class MovingAverage(Generic[_Model]):
    """A model whose weights follow another's: each update moves them by `1 - decay` of the way.

    Integer buffers, such as a count of batches, are copied.

    The first updates use the decay (1 + n) / (10 + n) if it is lower, so that a short run does not
    end near its random start. `model` is in eval mode and requires no gradients.
    """

    def __init__(self, model: _Model, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: _Model) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(
            zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        )
        averages, values = zip(*(p for p in pairs if p[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)
