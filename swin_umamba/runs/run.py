"""Read a run folder: for prediction, export, evaluation, reports, and continued training."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swin_umamba.common.environment import read_environment
from swin_umamba.common.jsons import load_object
from swin_umamba.data import Plan, Split, read_splits
from swin_umamba.errors import UserError
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import (
    CONFIG,
    ENVIRONMENT,
    PLAN,
    POSTPROCESSING,
    SPLITS,
    holds_run,
)
from swin_umamba.runs.folds import folds_of
from swin_umamba.runs.log import LOG, Record, read_log
from swin_umamba.weights.places import LAST, weights_in

LAST_VALIDATION = 0.9
"""Share of a run's minutes after which a validation is the last one: it starts early enough to be
over in time."""


@dataclass(frozen=True)
class Run:
    """The content of a run folder; everything but the config is read on access.

    All properties raise UserError, naming the file, if it is damaged.
    """

    folder: Path
    config: TrainConfig

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Open a run, finished or not. Raises UserError if the folder contains none."""
        folder = Path(folder)
        if not holds_run(folder):
            folds = folds_of(folder)
            what = "is missing" if not folder.exists() else f"holds no {CONFIG}"
            if folds:
                what = f"holds those of several folds; name one of them, as {folds[0]}"
            raise UserError(f"{folder} is not a training run: it {what}")
        return cls(folder, TrainConfig.load(folder / CONFIG))

    @cached_property
    def plan(self) -> Plan | None:
        """How images become the network's input; None if it was not trained from a dataset."""
        return Plan.load(self.folder / PLAN) if self._from_dataset(PLAN) else None

    @cached_property
    def split(self) -> Split | None:
        """The training and validation cases; None if it was not trained from a dataset."""
        return read_splits(self.folder / SPLITS)[0] if self._from_dataset(SPLITS) else None

    def _from_dataset(self, name: str) -> bool:
        """Whether a file exists that every training from a dataset leaves and must have."""
        found = (self.folder / name).is_file()
        if not found and self.config.dataset is not None:
            raise UserError(
                f"{self.folder / name} is missing: the run was trained from {self.config.dataset},"
                " and cannot be used as it was trained without this file"
            )
        return found

    @cached_property
    def environment(self) -> dict[str, str] | None:
        """The environment of the training, see `common.environment`; None if not recorded."""
        path = self.folder / ENVIRONMENT
        return read_environment(path) if path.is_file() else None

    @cached_property
    def postprocessing(self) -> dict[str, Any] | None:
        """The content of postprocessing.json; None if there is none."""
        path = self.folder / POSTPROCESSING
        return load_object(path, "postprocessing") if path.is_file() else None

    def log(self) -> list[Record]:
        """The records of its iterations so far."""
        return read_log(self.folder)

    def warn_if_unfinished(self) -> None:
        """Warn if training has not ended: the weights of any iteration can be used."""
        if not (self.folder / LOG).is_file():
            return
        try:
            records = self.log()
        except UserError as error:
            warnings.warn(f"whether {self.folder} is finished is unknown: {error}", stacklevel=3)
            return
        if not _ended(self.config, records):
            at = records[-1]["iteration"] if records else 0
            warnings.warn(
                f"{self.folder} has not finished training: it is at iteration {at} of"
                f" {self.config.iterations}, so results with it are preliminary",
                stacklevel=3,
            )

    def weights(self, checkpoint: str = "best") -> Path:
        """The weights file: "best" by validation (the last one if there was no validation), or
        "last".

        Raises UserError if there is none, ValueError for any other word.
        """
        found = weights_in(self.folder, checkpoint)
        if found is None:
            raise UserError(f"{self.folder} is not a finished training run: it holds no {LAST}")
        return found

    def require_plan(self) -> Plan:
        """The plan. Raises UserError if there is none."""
        if self.plan is None:
            raise UserError(f"{self.folder / PLAN} is missing: it was not trained from a dataset")
        return self.plan


def _ended(config: TrainConfig, records: list[Record]) -> bool:
    """Whether a run's log is that of a whole training, which ends with a validation."""
    if not records or "dsc" not in records[-1]:
        return False
    last = records[-1]
    if last["iteration"] >= config.iterations or last["iteration"] % config.validate_every:
        return True
    if (
        config.minutes is not None
        and last.get("seconds", 0.0) >= LAST_VALIDATION * 60 * config.minutes
    ):
        return True
    scores = [-1.0 if r["dsc"] is None else r["dsc"] for r in records if "dsc" in r]
    since_best = len(scores) - 1 - scores.index(max(scores))
    return config.patience is not None and since_best >= config.patience
