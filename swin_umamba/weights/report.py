"""What happened to every tensor of a checkpoint, and of the model."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

LOADED, RENAMED, ADAPTED = "loaded", "renamed", "adapted"
SKIPPED, MISMATCHED, UNEXPECTED, MISSING = "skipped", "mismatched", "unexpected", "missing"
_ORDER = (LOADED, RENAMED, ADAPTED, SKIPPED, MISMATCHED, UNEXPECTED, MISSING)

_FEW = 8  # maximum number of tensors with the same status that are listed individually


@dataclass(frozen=True)
class Entry:
    """One tensor. source, target: its name in the checkpoint and in the model, "" if it has none.
    status: one of the words above. note: the reason, unless obvious."""

    source: str
    target: str
    shape: tuple[int, ...]
    status: str
    note: str = ""

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass
class Report:
    """The complete report. kind: what the checkpoint was recognized as.

    Every tensor of the checkpoint has one entry, and so has every tensor of the model that received
    nothing: `missing`. Skipped ones have no place in the model; coverage counts those that have.
    """

    path: str
    kind: str
    entries: list[Entry] = field(default_factory=list)

    def of(self, *statuses: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.status in statuses]

    @property
    def coverage(self) -> float:
        """Fraction of the checkpoint's tensors with a place in the model that were loaded."""
        taken, refused = self._taken_and_refused()
        return len(taken) / max(len(taken) + len(refused), 1)

    @property
    def parameter_coverage(self) -> float:
        """The same, in parameters."""
        taken, refused = (sum(e.parameters for e in group) for group in self._taken_and_refused())
        return taken / max(taken + refused, 1)

    def _taken_and_refused(self) -> tuple[list[Entry], list[Entry]]:
        return self.of(LOADED, RENAMED, ADAPTED), self.of(MISMATCHED, UNEXPECTED)

    def counts(self) -> dict[str, int]:
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in _ORDER if found[status]}

    def to_json(self) -> str:
        return json.dumps(
            {
                "path": self.path,
                "kind": self.kind,
                "counts": self.counts(),
                "coverage": self.coverage,
                "parameter_coverage": self.parameter_coverage,
                "tensors": [asdict(entry) for entry in self.entries],
            },
            indent=1,
        )

    def summary(self) -> str:
        """One line: 'VMamba ...: 198 renamed, 14 skipped; 100.0 % of tensors, ...'."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts().items())
        return (
            f"{self.kind}: {counts}; {100 * self.coverage:.1f} % of the tensors and "
            f"{100 * self.parameter_coverage:.1f} % of the parameters that have a place"
        )

    def render(self, console: Console) -> None:
        """A table: unchanged tensors in one row, as are many with the same status; others one by
        one."""
        table = Table(title=f"{self.path}: {self.kind}")
        for column in ("status", "tensors", "parameters", "name", "why"):
            numbers = column in ("tensors", "parameters")
            table.add_column(column, justify="right" if numbers else "left")
        for status in _ORDER:
            fates: dict[str, list[Entry]] = {}
            for entry in self.of(status):
                fates.setdefault(entry.note, []).append(entry)
            for note, entries in fates.items():
                if status not in (LOADED, RENAMED) and len(entries) <= _FEW:
                    for entry in entries:
                        table.add_row(status, "1", f"{entry.parameters:,}", _name(entry), note)
                    continue
                first, last = entries[0], entries[-1]
                total = f"{sum(e.parameters for e in entries):,}"
                names = f"{_name(first)} ... {_name(last)}"
                table.add_row(status, str(len(entries)), total, names, note)
        console.print(table)
        console.print(self.summary())


def _name(entry: Entry) -> str:
    if entry.source and entry.target and entry.source != entry.target:
        return f"{entry.source} -> {entry.target}"
    return entry.source or entry.target
