"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba.data import CachedCases, Case, PatchLoader, PatchSampler
from swin_umamba.errors import UserError
from swin_umamba.losses import DeepSupervisionLoss, scale_weights
from swin_umamba.models import SegmentationModel, create_model
from swin_umamba.predict import pick_device
from swin_umamba.train.config import TrainConfig
from swin_umamba.train.guard import not_finite
from swin_umamba.train.run_folder import BEST, Record, RunFolder
from swin_umamba.train.stopping import stop_requests
from swin_umamba.train.validation import validate

MAX_RETURNS = 3  # to the last checkpoint, each with half the rate, before a run is given up


@dataclass(frozen=True)
class Progress:
    """Where a run stands after an iteration."""

    iteration: int  # counted from 1
    done: float  # 0..1, of iterations or of minutes, whichever is further
    seconds_left: float  # estimated
    loss: float | None  # None if the step was skipped
    dsc: float | None  # of the last validation


@dataclass(frozen=True)
class TrainResult:
    """A trained model, in eval mode and on its device, with the log's records."""

    model: SegmentationModel
    device: torch.device
    records: list[Record]
    dsc: float | None  # as `validate`, the last one
    best_dsc: float | None
    seconds: float
    stopped: bool  # asked to end before its time: `resume` goes on


def train(
    config: TrainConfig,
    train_cases: Sequence[Case],
    val_cases: Sequence[Case],
    folder: Path,
    *,
    resume: bool = False,
    files: Mapping[str, str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a model; leave config, log, checkpoint and weights (last and best) in `folder`.

    folder: missing or empty; with `resume`, that of a run of the same config, which goes on from
    its last checkpoint as if it had never stopped (on a CPU, unless `minutes` ends it, with the
    same weights bit by bit). files: further text files for the folder, by name. on_progress is
    called after every iteration. SIGINT or SIGTERM ends a run after the iteration, with a
    checkpoint.

    A step whose loss or gradient is not finite is skipped, and the log says why. After
    `max_skipped` in a row the last checkpoint comes back with half the learning rate; after three
    returns the run ends.

    Seeds torch's global generator. Raises UserError if the cases do not fit the config, the folder
    is taken or cannot be written to, or losses stay without a finite value.
    """
    _check_cases(config, train_cases, val_cases)
    run = _Run(config, train_cases, val_cases)
    with (
        RunFolder(folder, config.to_json(), files, resume=resume) as run.folder,
        stop_requests() as asked,
    ):
        return run.go(resume, asked, on_progress)


class _Run:
    """All that a run's iterations change."""

    def __init__(
        self,
        config: TrainConfig,
        train_cases: Sequence[Case],
        val_cases: Sequence[Case],
    ) -> None:
        self.config, self.val_cases = config, val_cases
        self.folder: RunFolder
        self.device = pick_device(config.device)
        torch.manual_seed(config.seed)
        self.model = create_model(
            config.model,
            in_channels=config.in_channels,
            out_channels=config.num_classes,
            deep_supervision=config.deep_supervision,
            pretrained=config.pretrained,
            **config.model_options,
        ).to(self.device)
        weights = scale_weights(len(self.model.scales) if config.deep_supervision else 1)
        self.loss_of = DeepSupervisionLoss(weights, config.batch_dice)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.half = half_precision(config.amp, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.sampler = PatchSampler(
            train_cases,
            patch_size=config.patch_size,
            batch_size=config.batch_size,
            foreground=config.foreground,
            augment=config.augment,
            seed=config.seed,
        )
        self.clock = _Clock(config)
        self.iteration = 0
        self.dsc: float | None = None
        self.best: float | None = None
        self.since_best = 0  # validations
        self.skipped = 0  # in a row
        self.returns = 0
        self.frozen = False

    def go(
        self,
        resume: bool,
        asked: Callable[[], bool],
        on_progress: Callable[[Progress], None] | None,
    ) -> TrainResult:
        state = self.folder.load_state() if resume else None
        if state is not None:
            self.restore(state)
        elif resume:
            self.folder.keep_log(0)
        config, stopped = self.config, False
        while not self.finished() and not stopped:
            with PatchLoader(
                self.sampler,
                workers=config.workers,
                start=self.iteration,
                stop=config.iterations,
                pin_memory=self.device.type == "cuda",
            ) as batches:
                while not self.finished() and not stopped:
                    waited = time.perf_counter()
                    images, masks = next(batches)
                    waited = time.perf_counter() - waited
                    record = self.step(images, masks)
                    record["waited"] = round(waited, 4)
                    self.after_step(record)
                    if on_progress is not None:
                        done = self.clock.done(self.iteration)
                        left = self.clock.seconds() * (1 - done) / done
                        on_progress(Progress(self.iteration, done, left, record["loss"], self.dsc))
                    stopped = asked() and not self.finished()
                    if self.skipped >= config.max_skipped:
                        self.go_back()
                        break  # to the batches from there
        self.checkpoint()
        self.folder.save(self.model)
        return TrainResult(
            self.model.eval(),
            self.device,
            self.folder.records,
            self.dsc,
            self.best,
            self.clock.seconds(),
            stopped,
        )

    def finished(self) -> bool:
        patience = self.config.patience
        return self.iteration > 0 and (
            self.clock.done(self.iteration) >= 1
            or (patience is not None and self.since_best >= patience)
        )

    def step(self, images: Tensor, masks: Tensor) -> Record:
        """One iteration on a batch. Returns its line of the log."""
        config, model = self.config, self.model
        self.freeze()
        lr = learning_rate(config, self.clock.done(self.iteration)) * 0.5**self.returns
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images = images.to(self.device, non_blocking=True)
        masks = masks.to(self.device, non_blocking=True)
        model.train()
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            outputs = model(images)
        loss = self.loss_of(outputs, masks)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        value = loss.item()
        problem = not_finite(model, value, norm)
        if problem is None:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        record: Record = {
            "iteration": self.iteration,
            "loss": None if problem == "the loss" else value,
            "lr": lr,
        }
        if problem is not None:
            record["skipped"] = problem
            # Half precision's scale is meant to overflow now and then: that is no failure.
            overflow = self.scaler.is_enabled() and problem != "the loss"
            self.skipped += 0 if overflow else 1
        else:
            self.skipped = 0
        return record

    def after_step(self, record: Record) -> None:
        """Validate, log and save where it is time."""
        config = self.config
        over = self.clock.done(self.iteration) >= 1
        if over or self.iteration % config.validate_every == 0:
            began = self.clock.seconds()
            record["dsc"] = self.dsc = validate(self.model, self.val_cases, config)
            self.clock.reserve = self.clock.seconds() - began
            if self.dsc is not None and (self.best is None or self.dsc > self.best):
                self.best, self.since_best = self.dsc, 0
                self.folder.save(self.model, BEST)
            else:
                self.since_best += 1
        record["seconds"] = round(self.clock.seconds(), 3)
        self.folder.log(record)
        if self.iteration % config.checkpoint_every == 0 and self.skipped == 0:
            self.checkpoint()

    def freeze(self) -> None:
        """Hold a pretrained encoder still at the start of a run."""
        wanted = (
            self.config.pretrained is not None and self.iteration < self.config.freeze_iterations
        )
        if wanted != self.frozen:
            (self.model.freeze_encoder if wanted else self.model.unfreeze_encoder)()
            self.frozen = wanted

    def checkpoint(self) -> None:
        generators = [torch.get_rng_state()]
        if self.device.type == "cuda":
            generators.append(torch.cuda.get_rng_state(self.device))
        self.folder.save_state(
            {
                "iteration": self.iteration,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "generators": generators,
                "seconds": self.clock.seconds(),
                "dsc": self.dsc,
                "best": self.best,
                "since_best": self.since_best,
                "returns": self.returns,
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.iteration, self.dsc = state["iteration"], state["dsc"]
            self.best, self.since_best = state["best"], state["since_best"]
            self.returns = state["returns"]
            self.clock.go_on_from(state["seconds"])
            first, *others = state["generators"]
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the checkpoint in {self.folder.path} does not fit this run: {reason}"
            ) from error
        torch.set_rng_state(first)
        if others and self.device.type == "cuda":
            torch.cuda.set_rng_state(others[0], self.device)
        self.skipped = 0
        self.folder.keep_log(self.iteration)

    def go_back(self) -> None:
        """Return to the last checkpoint, with half the learning rate."""
        where = self.folder.records[-1]
        state, returns = self.folder.load_state(), self.returns + 1
        if state is None or returns > MAX_RETURNS:
            raise UserError(
                f"{where['skipped']} is not finite at iteration {where['iteration']}, the"
                f" {self.skipped} steps up to it were skipped: lower lr ({self.config.lr:g}), or"
                f" switch amp ({self.config.amp}) off"
            )
        self.restore(state)
        self.returns = returns


def learning_rate(config: TrainConfig, done: float) -> float:
    """The rate when a share `done`, 0..1, of the run is over: a linear rise, then half a cosine."""
    if done < config.warmup:
        return config.lr * done / config.warmup
    over = (done - config.warmup) / (1 - config.warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * over)) / 2


def half_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast, or None to stay in float32."""
    if amp == "off" or device.type != "cuda":
        return None
    if amp == "auto":
        amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]


class _Clock:
    """How far a run is: by iterations, or by time if that is limited and further."""

    def __init__(self, config: TrainConfig) -> None:
        self.iterations = config.iterations
        self.limit = math.inf if config.minutes is None else 60 * config.minutes
        self.started = time.perf_counter()
        self.reserve = 0.0  # seconds that the last validation will take

    def go_on_from(self, seconds: float) -> None:
        self.started = time.perf_counter() - seconds

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def done(self, iteration: int) -> float:
        """0..1, after that many iterations."""
        by_time = (self.seconds() + self.reserve) / self.limit
        return min(max(iteration / self.iterations, by_time), 1.0)


def _check_cases(
    config: TrainConfig, train_cases: Sequence[Case], val_cases: Sequence[Case]
) -> None:
    for cases in (train_cases, val_cases):
        if isinstance(cases, CachedCases):
            continue  # checked as they were preprocessed
        for case in cases:
            channels, highest = case.image.shape[0], int(case.mask.max())
            if channels != config.in_channels:
                raise UserError(
                    f"{case.name} has {channels} channels, expected {config.in_channels}"
                )
            if highest >= config.num_classes or case.mask.min() < -1:
                raise UserError(
                    f"the mask of {case.name} holds the labels {int(case.mask.min())} to {highest},"
                    f" expected 0 to {config.num_classes - 1}, or -1 where ignored"
                )
