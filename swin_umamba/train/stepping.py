"""Training steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swin_umamba.common.compiling import compiled
from swin_umamba.common.graphs import GraphedStep
from swin_umamba.data import Case, Plan
from swin_umamba.loop.groups import set_rate
from swin_umamba.loop.guard import explain_skip
from swin_umamba.loop.schedule import learning_rate
from swin_umamba.loop.seeding import seed_iteration
from swin_umamba.loop.sharding import gathered, load_shares, shard, share_state
from swin_umamba.loop.stepping import BaseStepper
from swin_umamba.loop.world import World
from swin_umamba.losses import DeepSupervisionLoss, scale_weights
from swin_umamba.models import SegmentationModel
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import Record
from swin_umamba.runs.state import State
from swin_umamba.train.batches import Batches
from swin_umamba.train.network import build_model, build_optimizer, checkpoint_activations
from swin_umamba.weights.report import Report


def _graphs_impossible(config: TrainConfig, world: World) -> str | None:
    """Why steps on GPUs cannot be CUDA graphs; None if they can."""
    if world.size > 1:
        return "several processes exchange gradients"
    for name in ("compile", "checkpoint_activations"):
        if getattr(config, name):
            return f"{name} is on"
    return None


class Stepper(BaseStepper[SegmentationModel]):
    """Model, optimizer and batches: the state of an iteration.

    A context manager that ends the workers. asked: whether the run was asked to stop. pretrained:
    load the weights named in the config now. plan: determines whether outputs are regions.
    """

    def __init__(
        self,
        config: TrainConfig,
        cases: Sequence[Case],
        world: World,
        asked: Callable[[], bool],
        *,
        pretrained: bool,
        plan: Plan | None = None,
    ) -> None:
        self.config = config
        regions = None if plan is None else plan.region_classes
        self._build = (
            partial(build_model, config)
            if regions is None
            else partial(build_model, config, outputs=len(regions))
        )
        no_graphs = _graphs_impossible(config, world)
        super().__init__(self._build(pretrained=pretrained), config, world, no_graphs)
        self._whole: SegmentationModel | None = None
        self._still: set[str] = set()  # parameters of a frozen encoder
        if world.sharded:
            self._shard()
        self.optimizer = build_optimizer(self.model, config, world.device)
        if config.checkpoint_activations:
            checkpoint_activations(self.model)
        weights = scale_weights(len(self.model.scales) if config.deep_supervision else 1)
        self.loss_of = DeepSupervisionLoss(
            weights,
            config.batch_dice,
            across_ranks=world.size > 1,
            regions=regions,
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.half == torch.float16)
        self.batches: Batches = Batches(cases, config, world, asked)
        self._net: nn.Module | None = None
        self._frozen = False

    @property
    def pretrained_report(self) -> Report | None:
        """Report about the weights that a new run started from, if any."""
        return self.model.pretrained_report

    @property
    def trained(self) -> SegmentationModel:
        """The model to validate and save; with FSDP as last gathered."""
        return self._source if self._whole is None else self._whole

    def _shard(self) -> None:
        self._whole = copy.deepcopy(self.model)
        self._whole.freeze_encoder()
        self._still = {n for n, p in self._whole.named_parameters() if not p.requires_grad}
        self._whole.eval().requires_grad_(False)
        for model in {self.model, self._source}:
            shard(model, self.world.device)

    def gather(self) -> None:
        """With FSDP, bring `trained` up to date: must be called by all processes together."""
        if self._whole is not None:
            self._whole.load_state_dict(gathered(self._source.state_dict()))

    def _load(self, model: SegmentationModel, state: Mapping[str, Tensor]) -> None:
        if self._whole is None:
            model.load_state_dict(state)
        else:
            load_shares(model, state)

    def load_pretrained(self) -> None:
        """Load the initial weights named in the config, if any."""
        if self.config.pretrained is None and self.config.continue_from is None:
            return
        state = self._build(pretrained=True).state_dict()
        self._load(self.model, state)
        if self.average is not None:
            self._load(self.average.model, state)
            self.average.updates = 0

    def step(self, iteration: int, done: float, factor: float) -> Record:
        """Run iteration number `iteration`, from 0, at a fraction `done` of the run.

        factor: of the learning rate. Returns the log record: a step with a non-finite loss or
        gradient changes nothing and has "skipped" in its record; also "overflow" if lowering fp16's
        scale will help.
        """
        config, began = self.config, time.perf_counter()
        net = self._wrapped(iteration)
        lr = factor * learning_rate(config, done)
        set_rate(self.optimizer.param_groups, lr)
        seed_iteration(config.seed, iteration, self.world.rank)
        net.train()
        self.optimizer.zero_grad(set_to_none=True)
        batches, waited = self.batches.read(iteration)
        loss = self._gradients(net, iteration, batches)
        self._drop_frozen()
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # A single synchronization with the device for all of them.
        value, size = torch.stack((loss, gathered(norm))).tolist()
        record: Record = {"iteration": iteration + 1, "loss": value, "lr": lr, "gradient": size}
        if np.isfinite((value, size)).all():
            if size > config.clip_norm:
                nn.utils.clip_grads_with_norm_(self.model.parameters(), config.clip_norm, norm)
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.model)
        else:

            def forward() -> None:
                for images, _ in batches:
                    self._forward(self.model, images)

            explain_skip(record, self.model, forward, self.scaler)
        self.scaler.update()
        return self._timed(record, began, waited)

    def _drop_frozen(self) -> None:
        """FSDP fixes at the start which parameters have gradients, so a frozen encoder has them
        too."""
        if self._whole is not None and self._frozen:
            for name, parameter in self.model.named_parameters():
                if name in self._still:
                    parameter.grad = None

    def _backward(self, net: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Compute the gradient of the batches' mean loss, and return the loss."""
        total = torch.zeros((), device=self.world.device)
        for i, (images, masks) in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.world.unsynced(net):
                loss = self.loss_of(self._forward(net, images), masks) / len(batches)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _gradients(
        self, net: nn.Module, iteration: int, batches: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """`_backward`, as one CUDA graph per batch if that was chosen."""
        graph = self._graphs.graph(lambda: self._captured(iteration, *batches[0]))
        if graph is None:
            return self._backward(net, batches)
        total = torch.zeros((), device=self.world.device)
        for i, (images, masks) in enumerate(batches):
            total += graph(images, masks, first=i == 0) / len(batches)
        return total

    def _captured(self, iteration: int, images: Tensor, masks: Tensor) -> GraphedStep:
        try:
            return GraphedStep(
                self.model,
                self.loss_of,
                images,
                masks,
                dtype=self.half,
                scaler=self.scaler if self.scaler.is_enabled() else None,
                batches=self.config.accumulate,
            )
        finally:  # capturing consumes random numbers
            seed_iteration(self.config.seed, iteration, self.world.rank)

    def _wrapped(self, iteration: int) -> nn.Module:
        """The model as trained: in DDP, compiled, with a pretrained encoder frozen at first."""
        frozen = self.config.freezes(iteration)
        if self._net is None or frozen != self._frozen:
            if self._whole is None:  # with FSDP see _drop_frozen
                if frozen:
                    self.model.freeze_encoder()
                elif self._frozen:
                    self.model.unfreeze_encoder()
            self._frozen = frozen
            self._graphs.drop()
            net: Any = compiled(self.model) if self.config.compile else self.model
            self._net = self.world.wrapped(net)
        return self._net

    def state(self) -> State:
        """Everything a checkpoint needs besides the weights of `trained`.

        Must be called by all processes together. The same with and without FSDP.
        """
        state = super().state()
        return state if self._whole is None else gathered(state)

    def restore(self, state: State) -> None:
        """As `BaseStepper.restore`, also with FSDP."""
        if self._whole is not None:
            load_shares(self._source, self._whole.state_dict())
        super().restore(state)
        if self._whole is not None:
            share_state(self.optimizer)
