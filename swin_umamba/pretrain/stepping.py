"""Pretraining steps.

The host waits for the device only once per step, for its loss, while the end of the step and the
next batch are still being computed.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from swin_umamba.common.graphs import GraphedStep
from swin_umamba.common.transfer import ToHost
from swin_umamba.loop.groups import parameter_groups, set_rate
from swin_umamba.loop.guard import explain_skip
from swin_umamba.loop.schedule import learning_rate
from swin_umamba.loop.seeding import seed_iteration
from swin_umamba.loop.stepping import BaseStepper
from swin_umamba.loop.world import World
from swin_umamba.pretrain.batches import Batches
from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.tasks import Network, build_network, loss_of
from swin_umamba.pretrain.tiles import Tiles
from swin_umamba.runs.log import Record
from swin_umamba.weights.report import Report

_NEVER = 2**31 - 1  # growth interval in steps of a scale that should stay constant


class Stepper(BaseStepper[Network]):
    """Network, optimizer and batches: the state of an iteration.

    A context manager that ends the loading.
    """

    pretrained_report: Report | None = None

    def __init__(self, config: PretrainConfig, tiles: Tiles, world: World) -> None:
        self.config = config
        network = build_network(config, tiles.channels, len(tiles.classes))
        # Several processes average their gradients between graph and optimizer.
        super().__init__(network, config, world, no_graphs=None)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(
                self.model.named_parameters(), weight_decay=config.weight_decay, decay_all=False
            ),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,  # it skips non-finite steps without synchronizing with the device
        )
        self._scales = self.half == torch.float16
        self.scaler = (
            torch.amp.GradScaler(world.device.type)
            if self._scales
            else torch.amp.GradScaler(world.device.type, init_scale=1.0, growth_interval=_NEVER)
        )
        # the scaler has its scale from now on
        self.scaler.scale(torch.zeros((), device=world.device))
        self.loss_of = loss_of(config)
        self.batches: Batches = Batches(tiles, config, world)

    @property
    def trained(self) -> Network:
        """The network to score and save."""
        return self._source

    def gather(self) -> None:
        """Nothing: every process has the whole network."""

    def load_pretrained(self) -> None:
        """Nothing: a pretraining starts from random weights."""

    def step(self, iteration: int, done: float, factor: float) -> Record:
        """Run iteration number `iteration`, from 0, at a fraction `done` of the run.

        factor: of the learning rate. Returns the record of the log; see `train`.
        """
        config, began = self.config, time.perf_counter()
        lr = factor * learning_rate(config, done)
        set_rate(self.optimizer.param_groups, lr)
        seed_iteration(config.seed, iteration, self.world.rank)
        if not self.model.training:
            self.model.train()
        batch, waited = self.batches.read(iteration)
        graph = self._graphs.graph(lambda: self._captured(iteration, *batch))
        loss = self._backward(*batch) if graph is None else graph(*batch)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.world.average([*gradients, loss])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        numbers = ToHost(torch.stack((loss, norm)))
        # Clipping by a non-finite norm would destroy the gradients that show where it originated.
        finite = norm.nan_to_num(0.0, 0.0, 0.0)
        nn.utils.clip_grads_with_norm_(self.model.parameters(), config.clip_norm, finite)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self._scales else 1.0)
        if self.average is not None:
            self.average.update(self.model)
        if iteration + 1 < config.iterations:
            waited += self.batches.prepare(iteration + 1)
        value, size = numbers.read()[0].tolist()
        record: Record = {"iteration": iteration + 1, "loss": value, "lr": lr, "gradient": size}
        if not np.isfinite((value, size)).all():
            explain_skip(
                record, self.model, lambda: self._forward(self.model, batch[0]), self.scaler
            )
        return self._timed(record, began, waited)

    def _backward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the gradient of the batch's loss, and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss: Tensor = self.loss_of(self._forward(self.model, images), targets)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _captured(self, iteration: int, images: Tensor, targets: Tensor) -> GraphedStep:
        try:
            return GraphedStep(
                self.model,
                self.loss_of,
                images,
                targets,
                dtype=self.half,
                scaler=self.scaler if self._scales else None,
            )
        finally:  # capturing consumes random numbers
            seed_iteration(self.config.seed, iteration, self.world.rank)
