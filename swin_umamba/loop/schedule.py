"""The progress of a run, and its learning rate."""

from __future__ import annotations

import math
import time
from typing import Protocol


class Length(Protocol):
    """The length of a run."""

    @property
    def iterations(self) -> int: ...
    @property
    def minutes(self) -> float | None: ...


class Rates(Length, Protocol):
    """The parameters of the learning rate schedule."""

    @property
    def lr(self) -> float: ...
    @property
    def min_lr(self) -> float: ...
    @property
    def warmup(self) -> float: ...
    @property
    def decay_iterations(self) -> int | None: ...


def learning_rate(config: Rates, done: float) -> float:
    """The learning rate at a fraction `done`, 0..1, of the run: linear warmup, then half a cosine.

    With `decay_iterations` a shorter run ends before the cosine, and a longer one after it.
    """
    if done < config.warmup:
        return config.lr * done / config.warmup
    over = (done - config.warmup) / (1 - config.warmup)
    if config.decay_iterations is not None:
        over = min(over * config.iterations / config.decay_iterations, 1.0)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * over)) / 2


class Clock:
    """The progress of a run: by iterations, or by time if that is limited and further along."""

    def __init__(self, config: Length) -> None:
        self.iterations = config.iterations
        self.limit = math.inf if config.minutes is None else 60 * config.minutes
        self.started = time.perf_counter()
        self.reserve = 0.0  # expected seconds of the last validation

    def go_on_from(self, seconds: float) -> None:
        self.started = time.perf_counter() - seconds

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def done(self, iteration: int) -> float:
        """The fraction done, 0..1, after a number of iterations."""
        by_time = (self.seconds() + self.reserve) / self.limit
        return min(max(iteration / self.iterations, by_time), 1.0)
