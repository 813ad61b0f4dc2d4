"""Shared by the steppers of `train` and `pretrain`: precision, CUDA graphs, checkpoint content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from swin_umamba.common.closing import Closing
from swin_umamba.common.devices import amp_on, half_precision
from swin_umamba.common.graph_choice import CudaGraph, GraphChoice
from swin_umamba.common.graphs import GraphedStep
from swin_umamba.loop.ema import MovingAverage
from swin_umamba.loop.world import World
from swin_umamba.runs.log import Record
from swin_umamba.runs.state import State, require_optimizer, require_scaler

_Model = TypeVar("_Model", bound=nn.Module)


class StepSettings(Protocol):
    """The config fields that every stepper uses."""

    @property
    def amp(self) -> str: ...
    @property
    def ema(self) -> float | None: ...
    @property
    def cuda_graph(self) -> CudaGraph: ...


class _Batches(Protocol):
    def close(self) -> None: ...


class BaseStepper(Closing, Generic[_Model]):
    """A model with its moving average, optimizer and batches: the state of an iteration.

    A context manager that ends the loading of batches. no_graphs: why CUDA graphs are impossible in
    this run; None if a CUDA device can use them. Subclasses set optimizer, scaler and batches.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: _Batches

    def __init__(
        self, model: _Model, config: StepSettings, world: World, no_graphs: str | None
    ) -> None:
        self.world = world
        self.model = model.to(world.device)
        self.average = None if config.ema is None else MovingAverage(self.model, config.ema)
        self.half = half_precision(amp_on(world.device, config.amp), world.device)
        # On a CPU there is nothing to choose or report.
        wanted = config.cuda_graph if world.device.type == "cuda" else False
        self._graphs: GraphChoice[GraphedStep] = GraphChoice(wanted, no_graphs)

    @property
    def _source(self) -> _Model:
        return self.model if self.average is None else self.average.model

    def _forward(self, net: nn.Module, images: Tensor) -> Any:
        with torch.autocast(self.world.device.type, self.half, enabled=self.half is not None):
            return net(images)

    def _timed(self, record: Record, began: float, waited: float) -> Record:
        """The record of a step that ends now. began: by perf_counter; waited: seconds for data."""
        seconds = time.perf_counter() - began
        record["waited"] = round(waited, 4)
        record["step"] = round(seconds, 4)
        self._graphs.count(seconds - waited)
        news = self._graphs.news()
        if news is not None:
            record["cuda_graph"] = news
        return record

    def _load(self, model: _Model, state: Mapping[str, Tensor]) -> None:
        model.load_state_dict(state)

    def state(self) -> State:
        """Everything a checkpoint needs besides the weights of `trained`."""
        average = self.average
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "model": None if average is None else dict(self.model.state_dict()),
            "updates": 0 if average is None else average.updates,
        }

    def restore(self, state: State) -> None:
        """Continue from a `state()`, after the weights of `trained` have been loaded.

        Raises KeyError, TypeError, ValueError or RuntimeError for anything but a valid state.
        """
        require_optimizer(state, self.optimizer)
        require_scaler(state, self.scaler)
        if self.average is not None:
            self._load(self.model, state["model"])
            self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def close(self) -> None:
        self.batches.close()
