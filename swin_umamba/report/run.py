"""Read everything a training run left in its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba.common.environment import describe
from swin_umamba.data import Plan, Split
from swin_umamba.data.io.listing import visible
from swin_umamba.drawing.overlays import FOLDER as OVERLAYS
from swin_umamba.errors import UserError
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.log import LOG, waiting_share
from swin_umamba.runs.run import Run

_NUMBERED = re.compile(r"[0-9]{1,9}\.png")
TIMES = 6  # overlays of a case, evenly spaced over the run


@dataclass(frozen=True)
class LoadedRun:
    """A run's folder, read. plan and split are None if it was not trained from a dataset."""

    folder: Path
    config: TrainConfig
    records: list[dict[str, Any]]  # the log, with at least one record
    plan: Plan | None
    split: Split | None
    environment: dict[str, str]
    trained_there: bool  # whether it is the training's environment, or the current one
    overlays: dict[str, list[tuple[int, Path]]]  # overlays of each case, by iteration

    @property
    def best_dsc(self) -> float | None:
        """The best validation score, by which best.safetensors was chosen."""
        return max((r["dsc"] for r in self.records if r.get("dsc") is not None), default=None)

    @property
    def seconds(self) -> float:
        return float(self.records[-1].get("seconds", 0.0))

    @property
    def skipped(self) -> int:
        """Number of steps without a finite loss and gradient."""
        return sum("skipped" in record for record in self.records)

    @property
    def waited(self) -> float | None:
        """Fraction of the steps' time spent waiting for data."""
        return waiting_share(self.records)


def load_run(folder: Path) -> LoadedRun:
    """Read a run, finished or not. Raises UserError, naming the file, for damaged files."""
    run = Run.open(folder)
    records = run.log()
    if not records:
        raise UserError(f"{folder / LOG} is empty: the run has not finished an iteration yet")
    return LoadedRun(
        folder,
        run.config,
        records,
        run.plan,
        run.split,
        describe() if run.environment is None else run.environment,
        run.environment is not None,
        _overlays(folder / OVERLAYS),
    )


def _overlays(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    found = {}
    for case in visible(folder) if folder.is_dir() else []:
        pictures = visible(case) if case.is_dir() else []
        times = [(int(path.stem), path) for path in pictures if _NUMBERED.fullmatch(path.name)]
        last = len(times) - 1
        chosen = sorted({round(i * last / (TIMES - 1)) for i in range(TIMES)}) if times else []
        found[case.name] = [times[i] for i in chosen]
    return found
