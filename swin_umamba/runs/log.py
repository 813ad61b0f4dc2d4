"""The log of a run: one JSON object per line, one line per iteration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_umamba.common.files import reason_of
from swin_umamba.common.jsons import parse_json
from swin_umamba.errors import UserError

LOG = "log.jsonl"

Record = dict[str, Any]
# What every record contains besides its iteration, and what it may contain: numbers, or None if
# they were not finite.
_NEEDED = ("loss", "lr")
_NUMBERS = (
    *("seconds", "step", "waited", "gradient", "dsc", "memory_mb"),
    *("accuracy", "held_out_loss"),  # of a pretraining
)


def read_log(folder: Path, iteration: int | None = None) -> list[Record]:
    """A run's records up to an iteration, in order; a partial line at the end is ignored.

    Raises UserError, naming the file, if it cannot be read or an earlier line is damaged.
    """
    path = folder / LOG
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # a run is being written, or was killed
        try:
            record = parse_json(line)
            at = _iteration(record)
            if iteration is not None and at > iteration:
                break
            if records and at <= records[-1]["iteration"]:
                raise ValueError(f"iteration {at} occurs again")
            records.append(_checked(record))
        except ValueError as error:
            raise UserError(f"{path} is damaged in line {number}: {error}") from error
    return records


def waiting_share(records: Sequence[Record]) -> float | None:
    """Fraction of the steps' time spent waiting for data; None if it was not measured."""
    timed = [r for r in records if r.get("step") and "waited" in r]
    if not timed:
        return None
    return float(sum(r["waited"] for r in timed) / sum(r["step"] for r in timed))


def _iteration(record: Any) -> int:
    if not isinstance(record, dict) or "iteration" not in record:
        raise ValueError("it is not the record of an iteration")
    at = record["iteration"]
    if not isinstance(at, int) or isinstance(at, bool) or at < 1:
        raise ValueError(f"iteration: got {at!r}, expected a whole number, at least 1")
    return at


def _checked(record: Record) -> Record:
    missing = [name for name in _NEEDED if name not in record]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name in (*_NEEDED, *_NUMBERS):
        value = record.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"{name}: got {value!r}, expected a number or null")
    of_classes = record.get("dsc_of_classes", [])
    if not isinstance(of_classes, list) or any(
        isinstance(dsc, bool) or not isinstance(dsc, (int, float, type(None))) for dsc in of_classes
    ):
        raise ValueError(f"dsc_of_classes: got {of_classes!r}, expected a list of numbers")
    return record
