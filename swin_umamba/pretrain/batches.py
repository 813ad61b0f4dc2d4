"""This process's part of every batch, ready for the network on its device."""

from __future__ import annotations

import torch
from torch import Tensor

from swin_umamba.loop.world import World
from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.draws import Order, draw, draw_for_scores
from swin_umamba.pretrain.store import Store, fits, moved
from swin_umamba.pretrain.tiles import Indices, Tiles
from swin_umamba.pretrain.views import Views

Batch = tuple[Tensor, Tensor]  # see Views


class Batches:
    """Batches by iteration number, each prepared during the iteration before it.

    `close` ends the loading.
    """

    def __init__(self, tiles: Tiles, config: PretrainConfig, world: World) -> None:
        self.config, self.world = config, world
        train, self.held_out = tiles.split(config.held_out, config.seed)
        share = config.batch_size // world.size
        self._part = slice(world.rank * share, (world.rank + 1) * share)
        self._order = Order(train, config.batch_size, config.seed)
        mean, deviation = tiles.statistics()
        self._views = Views(config, mean, deviation, len(tiles.classes), world.device)
        resident = config.resident
        if resident is None:
            resident = fits(tiles.pixels, world.device)
        self._store = Store(tiles.pixels, world.device, resident=resident)
        self._labels = (
            None if tiles.labels is None else torch.from_numpy(tiles.labels).to(world.device)
        )
        self._asked = -1
        self._next: tuple[int, Batch] | None = None

    def read(self, iteration: int) -> tuple[Batch, float]:
        """The batch of an iteration, and the seconds of waiting for its images."""
        if self._next is not None and self._next[0] == iteration:
            batch, self._next = self._next[1], None
            return batch, 0.0
        return self._made(iteration)

    def prepare(self, iteration: int) -> float:
        """Prefetch a batch. Returns the seconds of waiting for its images."""
        batch, waited = self._made(iteration)
        self._next = iteration, batch
        return waited

    def scored(self, first: int, count: int) -> tuple[Batch, int]:
        """A batch of this process's held-out images, whole and unchanged."""
        own = self.held_out[self.world.rank :: self.world.size][first : first + count]
        return self._views(
            self._store.take(own)[0],
            self._labels_of(own),
            draw_for_scores(self.config, own),
            soften=False,
        ), len(own)

    def close(self) -> None:
        self._store.close()

    def _made(self, iteration: int) -> tuple[Batch, float]:
        own = self._indices(iteration)
        if self._asked != iteration:
            self._store.ask(own)
        tiles, waited = self._store.take(own)
        self._store.ask(self._indices(iteration + 1))
        self._asked = iteration + 1
        draws = draw(self.config, iteration, self._part)
        return self._views(tiles, self._labels_of(own), draws), waited

    def _indices(self, iteration: int) -> Indices:
        return self._order.batch(iteration)[self._part]

    def _labels_of(self, indices: Indices) -> Tensor | None:
        if self._labels is None:
            return None
        return self._labels[moved(indices, self.world.device)]
