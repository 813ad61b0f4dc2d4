"""One step of a pretraining after another.

The device is never waited for but once a step, for its loss, while the step's end and the next
batch are still to be computed there.
"""

from __future__ import annotations

import time
import warnings
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from swin_umamba.common.devices import amp_on, half_precision
from swin_umamba.common.graphs import GraphedStep
from swin_umamba.loop.ema import MovingAverage
from swin_umamba.loop.groups import parameter_groups, set_rate
from swin_umamba.loop.guard import explain_skip
from swin_umamba.loop.schedule import learning_rate
from swin_umamba.loop.seeding import seed_iteration
from swin_umamba.loop.world import World
from swin_umamba.pretrain.batches import Batch, Batches
from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.tasks import Network, build_network, loss_of
from swin_umamba.pretrain.tiles import Tiles
from swin_umamba.runs.log import Record
from swin_umamba.runs.state import State, require_optimizer, require_scaler
from swin_umamba.weights.report import Report

_NEVER = 2**31 - 1  # steps after which a scale that is to stay would grow


class Stepper:
    """Network, optimizer and batches: what an iteration reads and changes.

    A context manager that ends the reading.
    """

    pretrained_report: Report | None = None

    def __init__(self, config: PretrainConfig, tiles: Tiles, world: World) -> None:
        self.config, self.world = config, world
        self.network = build_network(config, tiles.channels, len(tiles.classes)).to(world.device)
        self.average = None if config.ema is None else MovingAverage(self.network, config.ema)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(
                self.network.named_parameters(), weight_decay=config.weight_decay, decay_all=False
            ),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,  # which leaves out steps that are not finite without asking the device
        )
        self.half = half_precision(amp_on(world.device, config.amp), world.device)
        self._scales = self.half == torch.float16
        self.scaler = (
            torch.amp.GradScaler(world.device.type)
            if self._scales
            else torch.amp.GradScaler(world.device.type, init_scale=1.0, growth_interval=_NEVER)
        )
        self.scaler.scale(torch.zeros((), device=world.device))  # it has its scale from now on
        self.loss_of = loss_of(config)
        self.batches = Batches(tiles, config, world)
        self._graphed = config.cuda_graph
        if self._graphed is None:
            self._graphed = world.device.type == "cuda"
        self._graph: GraphedStep | None = None

    @property
    def trained(self) -> Network:
        """The network to score and to keep."""
        return self.network if self.average is None else self.average.model

    def gather(self) -> None:
        """Nothing: every process has the whole network."""

    def load_pretrained(self) -> None:
        """Nothing: a pretraining starts at random."""

    def step(self, iteration: int, done: float, factor: float) -> Record:
        """Iteration number `iteration`, from 0, when a share `done` of the run is over.

        factor: of the learning rate. Returns the record of the log; see `train`.
        """
        config, began = self.config, time.perf_counter()
        lr = factor * learning_rate(config, done)
        set_rate(self.optimizer.param_groups, lr)
        seed_iteration(config.seed, iteration, self.world.rank)
        if not self.network.training:
            self.network.train()
        batch, waited = self.batches.read(iteration)
        loss = self._replay(iteration, batch) if self._graphed else self._backward(batch)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self.world.average([*gradients, loss])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        numbers = _Numbers(torch.stack((loss, norm)))
        # A norm that is not finite would spoil the very gradients that tell where it came from.
        finite = norm.nan_to_num(0.0, 0.0, 0.0)
        nn.utils.clip_grads_with_norm_(self.network.parameters(), config.clip_norm, finite)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self._scales else 1.0)
        if self.average is not None:
            self.average.update(self.network)
        if iteration + 1 < config.iterations:
            waited += self.batches.prepare(iteration + 1)
        value, size = numbers.read()
        record: Record = {"iteration": iteration + 1, "loss": value, "lr": lr, "gradient": size}
        if not np.isfinite((value, size)).all():
            explain_skip(record, self.network, lambda: self._forward(batch[0]), self.scaler)
        record["waited"] = round(waited, 4)
        record["step"] = round(time.perf_counter() - began, 4)
        return record

    def _backward(self, batch: Batch) -> Tensor:
        """Leave the gradient of the batch's loss, and return that."""
        self.optimizer.zero_grad(set_to_none=True)
        images, targets = batch
        loss: Tensor = self.loss_of(self._forward(images), targets)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def _replay(self, iteration: int, batch: Batch) -> Tensor:
        """`_backward` as one CUDA graph, captured at the first call."""
        images, targets = batch
        if self._graph is None:
            try:
                self._graph = self._captured(images, targets)
            except RuntimeError as error:  # whatever kernels or libraries refuse, and no memory
                if self.config.cuda_graph:
                    raise
                reason = str(error).splitlines()[0]
                warnings.warn(f"steps are no CUDA graph: {reason}", stacklevel=2)
                self._graphed = False
            # Capturing has drawn numbers.
            seed_iteration(self.config.seed, iteration, self.world.rank)
        if self._graph is None:
            return self._backward(batch)
        return self._graph(images, targets)

    def _captured(self, images: Tensor, targets: Tensor) -> GraphedStep:
        return GraphedStep(
            self.network,
            self.loss_of,
            images,
            targets,
            dtype=self.half,
            scaler=self.scaler if self._scales else None,
        )

    def _forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.world.device.type, self.half, enabled=self.half is not None):
            outputs: Tensor = self.network(images)
        return outputs

    def state(self) -> State:
        """What a checkpoint needs beside the weights of `trained`."""
        average = self.average
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "model": None if average is None else dict(self.network.state_dict()),
            "updates": 0 if average is None else average.updates,
        }

    def restore(self, state: State) -> None:
        """Go on from a `state()`, when the weights of `trained` are in place.

        Raises KeyError, TypeError, ValueError or RuntimeError for a state of anything else.
        """
        require_optimizer(state, self.optimizer)
        require_scaler(state, self.scaler)
        if self.average is not None:
            self.network.load_state_dict(state["model"])
            self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def __enter__(self) -> Stepper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.batches.close()


class _Numbers:
    """Values on their way from the device: waits for them, not for what was asked for since."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values.clone()

    def read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        found: list[float] = self._values.tolist()
        return found
