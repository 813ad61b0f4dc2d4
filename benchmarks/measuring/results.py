"""Measurements on disk: rows, their JSON file, and comparisons of two files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring.cases import Case, ModelCase
from benchmarks.measuring.timing import Times

SCHEMA = 1
OK, WRONG, MISSING, FAILED, NOT_RUN = "ok", "wrong", "missing", "failed", "not run"
Key = tuple[str, str, str, str, str]


@dataclass
class Row:
    """One competitor on one case. status is "ok" exactly if times is set; otherwise see reason.

    op: a scan, or a model's name, whose case is a ModelCase. extra_bytes: peak memory of a call
    (GPU only), beyond its inputs, output and gradients; for a model beyond its weights and inputs.
    floor_ms: the least time allowed by the measured limits of the device. graph_ms: the median for
    replays of a CUDA graph, if requested. joules: energy of the whole board per call (GPU only), if
    nvidia-ml-py is installed.
    """

    op: str
    mode: str
    case: Case | ModelCase
    dtype: str
    competitor: str
    ours: bool
    status: str
    reason: str | None = None
    times: Times | None = None
    extra_bytes: int | None = None
    floor_ms: float | None = None
    graph_ms: float | None = None
    joules: float | None = None

    @property
    def key(self) -> Key:
        return (self.op, self.mode, self.case.label, self.dtype, self.competitor)

    @property
    def floor_share(self) -> float | None:
        """Floor divided by median: 1 is as fast as the device allows."""
        if self.times is None or self.floor_ms is None:
            return None
        return self.floor_ms / self.times.median


@dataclass
class Results:
    """All rows of a run, its environment and device limits, and missing competitors."""

    environment: dict[str, Any]
    ceilings: dict[str, float | None]
    missing: dict[str, str]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")

    def medians(self) -> dict[Key, Row]:
        return {row.key: row for row in self.rows if row.times is not None}


def load(path: Path) -> Results:
    """Read a file written by `Results.save`. ValueError for anything else."""
    data = json.loads(path.read_text())
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no benchmark file of schema {SCHEMA}")
    rows = []
    for entry in data["rows"]:
        times = entry["times"]
        case = entry["case"]
        entry["case"] = Case(**case) if "D" in case else ModelCase(**case)
        entry["times"] = None if times is None else Times(**times)
        rows.append(Row(**entry))
    return Results(data["environment"], data["ceilings"], data["missing"], data["settings"], rows)


@dataclass(frozen=True)
class Change:
    """The same measurement in two files; ratio is new over old."""

    key: Key
    old: Times
    new: Times

    @property
    def ratio(self) -> float:
        return self.new.median / self.old.median

    def is_slower(self, tolerance: float) -> bool:
        """Slower by more than the tolerance, and by more than both spreads."""
        return self.ratio > 1 + tolerance and self.new.p20 > self.old.p80


def changes(old: Results, new: Results) -> list[Change]:
    """Every measurement that is in both files."""
    before = old.medians()
    found = []
    for key, row in new.medians().items():
        if key in before:
            then, now = before[key].times, row.times
            assert then is not None
            assert now is not None
            found.append(Change(key, then, now))
    return found
