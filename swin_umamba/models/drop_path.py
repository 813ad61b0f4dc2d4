"""Stochastic depth: drop whole residual branches for some samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero x for each sample with probability `rate` during training, and rescale the rest.

    x: (B, ...), any dtype; the result has x's shape, dtype and expectation. No effect in eval mode
    or at rate 0. Source: Huang et al., Deep Networks with Stochastic Depth, arXiv:1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate: got {rate}, expected 0 <= rate < 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = torch.full((x.shape[0],) + (1,) * (x.ndim - 1), keep, device=x.device)
        return x * (torch.bernoulli(mask) / keep).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


def linear_rates(first: float, last: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Drop rates of all blocks, evenly spaced from `first` to `last`, as one list per stage."""
    blocks = sum(depths)
    step = (last - first) / max(blocks - 1, 1)
    rates = iter([first + step * i for i in range(blocks)])
    return [[next(rates) for _ in range(depth)] for depth in depths]
