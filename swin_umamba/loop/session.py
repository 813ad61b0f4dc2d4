"""The loop of a run: validations, log, checkpoints, and returns to the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from swin_umamba.errors import UserError
from swin_umamba.loop.board import Board
from swin_umamba.loop.schedule import Clock, Rates
from swin_umamba.loop.stopping import StopRequests
from swin_umamba.loop.world import World
from swin_umamba.runs.checkpoints import Checkpoints
from swin_umamba.runs.folder import BEST, WEIGHTS, RunFolder
from swin_umamba.runs.log import Record, read_log
from swin_umamba.runs.state import State, require_standing
from swin_umamba.weights.report import Report

_Model = TypeVar("_Model", bound=nn.Module)
_Trained_co = TypeVar("_Trained_co", bound=nn.Module, covariant=True)


class Settings(Rates, Protocol):
    """The config fields that a session uses."""

    @property
    def batch_size(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...
    @property
    def patience(self) -> int | None: ...
    @property
    def max_skipped(self) -> int: ...
    @property
    def max_returns(self) -> int: ...
    @property
    def amp(self) -> str: ...
    @property
    def tensorboard(self) -> bool: ...


class Steps(Protocol[_Trained_co]):
    """What is trained, step by step."""

    @property
    def trained(self) -> _Trained_co:
        """The model to validate and save."""
        ...

    @property
    def pretrained_report(self) -> Report | None:
        """Report about the weights that a new run started from, if any."""
        ...

    def load_pretrained(self) -> None:
        """Load the initial weights named in the config, if any."""
        ...

    def step(self, iteration: int, done: float, factor: float) -> Record:
        """Run iteration number `iteration`, from 0; factor: of the learning rate.

        Returns the log record, with "skipped" if a loss or gradient was not finite and nothing was
        changed; also with "overflow" if lowering fp16's scale will help.
        """
        ...

    def gather(self) -> None:
        """Bring `trained` up to date; called by all processes together."""
        ...

    def state(self) -> State:
        """Everything a checkpoint needs besides the weights of `trained`."""
        ...

    def restore(self, state: State) -> None:
        """Continue from a `state()`, after the weights of `trained` have been loaded."""
        ...


class Score(Protocol):
    """The result of a validation."""

    @property
    def value(self) -> float | None:
        """Selects the best weights, 0..1, higher is better; None if nothing is selected."""
        ...

    def facts(self) -> dict[str, Any]:
        """Its values for the log, by name."""
        ...


@dataclass(frozen=True)
class Progress:
    """The state of a run after an iteration."""

    iteration: int  # counted from 1
    done: float  # 0..1, of iterations or minutes, whichever is further along
    seconds_left: float  # estimated
    loss: float | None  # None if it was not finite
    dsc: float | None  # of the last validation; in pretraining the accuracy
    images_per_second: float  # of the last step
    waited: float  # fraction of the last step, 0..1, spent waiting for data


@dataclass(frozen=True)
class Result(Generic[_Model]):
    """A trained model, in eval mode on its device, with the log's records."""

    model: _Model
    device: torch.device
    records: list[Record]
    dsc: float | None  # of the last validation; in pretraining the accuracy
    best_dsc: float | None
    seconds: float
    stopped: bool  # stopped early on request: `resume` continues
    signal: int | None  # the signal that stopped this process, if any
    pretrained: Report | None  # report about the weights that a new run started from, if any


class Session(Generic[_Model]):
    """Everything around the steps: validations, log, checkpoints, and the end.

    validation: called with the model after an iteration. keep_best: also keep the weights of the
    best validation.
    """

    def __init__(
        self,
        config: Settings,
        validation: Callable[[_Model, int], Score],
        stepper: Steps[_Model],
        world: World,
        path: Path,
        folder: RunFolder | None,
        *,
        keep_best: bool = True,
    ) -> None:
        self.keep_best = keep_best
        self.config, self.validation, self.stepper, self.world = config, validation, stepper, world
        self.path, self.folder = path, folder  # the log only in the process that writes
        self.checkpoints = Checkpoints(path)
        self.clock = Clock(config)
        self.records: list[Record] = []
        self.iteration = 0
        self.done = 0.0
        self.dsc: float | None = None  # as in `Progress`
        self.best: float | None = None
        self.since_best = 0  # validations
        self.skipped = 0  # in a row
        self.returns = 0
        self.returned: str | None = None  # the reason, for the next record

    def go(
        self,
        resume: bool,
        asked: StopRequests,
        on_progress: Callable[[Progress], None] | None,
    ) -> Result[_Model]:
        config = self.config
        if resume:
            if self.folder is not None:
                self.checkpoints.settle()
            self.world.wait()
        state = self.checkpoints.load() if resume else None
        if state is not None:
            self.restore(state)
        else:
            if resume:
                # The run died before its first checkpoint.
                self.cut_log(0)
                self.stepper.load_pretrained()
            self.save()
        board = Board(self.path, self.iteration) if self.folder and config.tensorboard else None
        stopped = False
        while not (stopped or self.finished):
            record = self.stepper.step(self.iteration, self.done, 0.5**self.returns)
            self.iteration += 1
            (self.done,) = self.world.highest(self.clock.done(self.iteration))
            self.after_step(record)
            if board is not None:
                board.add(record)
            if on_progress is not None:
                on_progress(self.progress(record))
            if self.skipped >= config.max_skipped:
                self.go_back(record)
            (asked_anywhere,) = self.world.highest(float(asked()))
            stopped = bool(asked_anywhere) and not self.finished
        if stopped:
            self.save()
        if board is not None:
            board.close()
        return Result(
            self.stepper.trained.eval(),
            self.world.device,
            self.records,
            self.dsc,
            self.best,
            self.clock.seconds(),
            stopped,
            asked.signal if stopped else None,
            self.stepper.pretrained_report,
        )

    @property
    def finished(self) -> bool:
        patience = self.config.patience
        return self.done >= 1 or (patience is not None and self.since_best >= patience)

    def after_step(self, record: Record) -> None:
        """Validate, log and save when due."""
        config = self.config
        if self.returned is not None:
            record["returned"], self.returned = self.returned, None
        overflow = record.pop("overflow", False)
        if "skipped" not in record:
            self.skipped = 0
        elif not overflow:
            self.skipped += 1
        better = False
        if self.done >= 1 or self.iteration % config.validate_every == 0:
            better = self.validate(record)
        record["seconds"] = round(self.clock.seconds(), 3)
        self.records.append(record)
        if self.folder is not None:
            self.folder.log(record)
        due = better or self.iteration % config.checkpoint_every == 0
        if (due and self.skipped == 0) or self.finished:
            self.save(better)

    def validate(self, record: Record) -> bool:
        """Add the scores to the record. Returns whether they are the best so far."""
        began = self.clock.seconds()
        self.stepper.gather()
        score = self.validation(self.stepper.trained, self.iteration)
        self.clock.reserve = self.clock.seconds() - began
        self.dsc = score.value
        record.update(score.facts())
        if self.world.device.type == "cuda":
            record["memory_mb"] = round(torch.cuda.max_memory_allocated(self.world.device) / 1e6)
        # While steps are being skipped there is no checkpoint to which the weights could belong.
        better = score.value is not None and (self.best is None or score.value > self.best)
        if better and self.skipped == 0:
            self.best, self.since_best = score.value, 0
            return self.keep_best
        self.since_best += 1
        return False

    def progress(self, record: Record) -> Progress:
        seconds = max(record["step"], 1e-9)
        return Progress(
            self.iteration,
            self.done,
            self.clock.seconds() * (1 - self.done) / self.done,
            record["loss"],
            self.dsc,
            self.config.batch_size * self.config.accumulate / seconds,
            record["waited"] / seconds,
        )

    def save(self, better: bool = False) -> None:
        """Write a checkpoint, and the weights as the best ones if they are."""
        self.stepper.gather()
        trained = self.stepper.state()
        if self.folder is None:
            return
        state = {
            "iteration": self.iteration,
            "seconds": self.clock.seconds(),
            "reserve": self.clock.reserve,
            "dsc": self.dsc,
            "best": self.best,
            "since_best": self.since_best,
            "skipped": self.skipped,
            "returns": self.returns,
            "returned": self.returned,
            **trained,
        }
        names = (WEIGHTS, BEST) if better else (WEIGHTS,)
        self.checkpoints.save(state, dict.fromkeys(names, self.stepper.trained))

    def restore(self, state: State) -> None:
        self.checkpoints.load_weights(WEIGHTS, self.stepper.trained)
        require_standing(state, self.path)
        try:
            self.stepper.restore(state)
            self.iteration = state["iteration"]
            self.dsc, self.best = state["dsc"], state["best"]
            self.since_best, self.skipped = state["since_best"], state["skipped"]
            self.returns, self.returned = state["returns"], state["returned"]
            self.clock.go_on_from(state["seconds"])
            self.clock.reserve = state["reserve"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the checkpoint in {self.path} does not fit: {reason}") from error
        (self.done,) = self.world.highest(self.clock.done(self.iteration))
        self.cut_log(self.iteration)

    def cut_log(self, iteration: int) -> None:
        if self.folder is not None:
            self.records = self.folder.cut_log(iteration)
        else:
            self.records = read_log(self.path, iteration)

    def go_back(self, record: Record) -> None:
        """Return to the last checkpoint, with half the learning rate."""
        why = (
            f"{record['skipped']} was not finite at iteration {self.iteration}, for the"
            f" {self.skipped}th time in a row"
        )
        if self.returns >= self.config.max_returns:
            raise UserError(
                f"{why}, after {self.returns} returns to the last checkpoint: lower lr"
                f" ({self.config.lr:g}), or switch amp ({self.config.amp}) off"
            )
        returns, seconds = self.returns + 1, self.clock.seconds()
        self.world.wait()  # all processes read what the first one has written
        state = self.checkpoints.load()
        assert state is not None  # every run begins with a checkpoint
        self.restore({**state, "seconds": seconds, "skipped": 0})
        self.returns, self.returned = returns, why
        self.world.wait()
        # Save now, so that a process that dies does not return to the full rate.
        self.save()
