"""Score a network on the held-out images."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from swin_umamba.common.devices import amp_on, half_precision
from swin_umamba.loop.world import World
from swin_umamba.pretrain.batches import Batches
from swin_umamba.pretrain.config import CLASSES, PretrainConfig
from swin_umamba.pretrain.tasks import Held, Network, loss_of


class Scoring:
    """Scores held-out images, whole; processes share them."""

    def __init__(self, config: PretrainConfig, batches: Batches, world: World) -> None:
        self.config, self.batches, self.world = config, batches, world
        self.half = half_precision(amp_on(world.device, config.amp), world.device)
        self.loss_of = loss_of(config)

    @torch.no_grad()
    def __call__(self, network: Network, iteration: int) -> Held:
        network.eval()
        device = self.world.device
        sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct images, images
        own = len(self.batches.held_out[self.world.rank :: self.world.size])
        for first in range(0, own, self.config.batch_size):
            (images, targets), count = self.batches.scored(first, self.config.batch_size)
            with torch.autocast(device.type, self.half, enabled=self.half is not None):
                outputs = network(images)
            loss = self.loss_of(outputs, targets).double()
            right = self._right(outputs, targets)
            sums += torch.stack((loss * count, right, torch.full_like(loss, count)))
        loss, right, images_seen = (sum(column) for column in zip(*self._all(sums), strict=True))
        if not images_seen:
            return Held(None, None)
        if loss != loss:
            warnings.warn(
                f"the score at iteration {iteration} is not finite: the network returns NaN",
                stacklevel=2,
            )
            return Held(None, None)
        accuracy = right / images_seen if self.config.task == CLASSES else None
        return Held(accuracy, loss / images_seen)

    def _right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.config.task != CLASSES:
            return torch.zeros((), dtype=torch.float64, device=outputs.device)
        return (outputs.argmax(1) == targets.argmax(1)).sum().double()

    def _all(self, sums: Tensor) -> list[list[float]]:
        found: list[list[float]] = self.world.gathered([sums.tolist()])
        return found
