"""The batches of every iteration, on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from swin_umamba.common.devices import usable_cores
from swin_umamba.data import Case, PatchLoader, PatchSampler
from swin_umamba.errors import UserError
from swin_umamba.loop.world import World
from swin_umamba.runs.config import TrainConfig

MAX_WORKERS = 8


class Batches:
    """This process's part of every batch, by iteration number.

    Worker processes prefetch the iterations that follow the last one read; `close` ends them.
    asked: whether the run was asked to stop.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        config: TrainConfig,
        world: World,
        asked: Callable[[], bool],
    ) -> None:
        self.config, self.world, self.asked = config, world, asked
        self.sampler = PatchSampler(
            cases,
            patch_size=config.patch_size,
            batch_size=config.batch_size,
            foreground=config.foreground,
            augment=config.augmentation_numbers(),
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
        )
        self._loader: PatchLoader | None = None
        self._next = -1  # the iteration of the loader's next batch

    def read(self, iteration: int) -> tuple[list[tuple[Tensor, Tensor]], float]:
        """Images and masks of an iteration, `accumulate` pairs, and the seconds of waiting."""
        config, device = self.config, self.world.device
        began = time.perf_counter()
        if self._loader is None or self._next != iteration:
            self.close()
            self._loader = PatchLoader(
                self.sampler,
                workers=workers_of(config, self.world),
                start=iteration * config.accumulate,
                stop=config.iterations * config.accumulate,
                pin_memory=device.type == "cuda",
            )
        first = iteration * config.accumulate
        read = [self._batch(index) for index in range(first, first + config.accumulate)]
        self._next = iteration + 1
        waited = time.perf_counter() - began
        moved = [
            (images.to(device, non_blocking=True), masks.to(device, non_blocking=True))
            for images, masks in read
        ]
        return moved, waited

    def _batch(self, index: int) -> tuple[Tensor, Tensor]:
        if self._loader is not None:
            try:
                return next(self._loader)
            except UserError:
                # A terminal or scheduler signals the workers too, which may end before this
                # process.
                if not self.asked():
                    raise
                self.close()
        return self.sampler.batch(index)

    def close(self) -> None:
        """End the workers."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def workers_of(config: TrainConfig, world: World) -> int:
    """Number of worker processes that cut patches for this process."""
    if config.workers is not None:
        return config.workers
    if world.device.type != "cuda":
        return 0
    return max(min(usable_cores() // world.size - 1, MAX_WORKERS), 1)
