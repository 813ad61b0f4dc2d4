"""Count a model's multiply-adds without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from swin_umamba.models.ss2d import DIRECTIONS, Scan


@dataclass(frozen=True)
class Flops:
    """The work of one module in one forward pass.

    macs: multiply-adds of convolutions, linear layers and SS2D's projections.
    scan_state_steps: B*L*K*D*N of the scans. scan_steps: B*L*K*D of the scans.
    """

    macs: int = 0
    scan_state_steps: int = 0
    scan_steps: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.macs + other.macs,
            self.scan_state_steps + other.scan_state_steps,
            self.scan_steps + other.scan_steps,
        )

    @property
    def paper_first(self) -> int:
        """FLOPs as in the paper's first version: multiply-adds, and 4 per state and step."""
        return self.macs + 4 * self.scan_state_steps

    @property
    def paper_later(self) -> int:
        """FLOPs as in the paper's later version: multiply-adds, 9 per state and step, 1 a step."""
        return self.macs + 9 * self.scan_state_steps + self.scan_steps


@contextmanager
def count_flops(model: nn.Module) -> Iterator[dict[nn.Module, Flops]]:
    """Record, within the context, the FLOPs of every convolution, linear layer and scan that runs.

    Keeps the latest call of each module; a module that runs twice in one pass would be
    undercounted, which does not occur in our models.
    """
    counts: dict[nn.Module, Flops] = {}

    def record(rule: _Rule) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            counts[module] = rule(module, args, out)

        return hook

    handles = [
        module.register_forward_hook(record(rule))
        for module in model.modules()
        for kind, rule in _RULES.items()
        if isinstance(module, kind)
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _conv(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Flops:
    return Flops(out.numel() * module.weight[0].numel())


def _transposed_conv(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Flops:
    return Flops(args[0].numel() * module.weight[0].numel())


def _linear(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Flops:
    return Flops(out.numel() * module.in_features)


def _scan(module: Any, args: tuple[Tensor, ...], out: Tensor) -> Flops:
    x, x_proj_weight, dt_projs_weight, _, A_logs = args[:5]
    projections = x[:, 0].numel() * (x_proj_weight.numel() + dt_projs_weight.numel())
    steps = x.numel() * DIRECTIONS
    return Flops(projections, steps * A_logs.shape[1], steps)


_Rule = Callable[[Any, tuple[Tensor, ...], Tensor], Flops]
_RULES: dict[type[nn.Module], _Rule] = {
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _transposed_conv,
    nn.Linear: _linear,
    Scan: _scan,
}


def rule_of(module: nn.Module) -> _Rule:
    """Counts a layer's work from the layer, its inputs and its output."""
    return next(rule for kind, rule in _RULES.items() if isinstance(module, kind))
