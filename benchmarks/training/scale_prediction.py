"""What more GPUs than were measured should give: a ring's exchange of gradients after each step.

A step of n processes is taken to last as long as one process's, plus the exchange of all
gradients, plus whatever the largest measured number of processes needed beyond both (waiting for
each other, more launches). A ring moves 2 (n - 1) / n times the gradients' bytes over each
process's link, at the rate that an all-reduce of as many bytes reached there. DDP exchanges
gradients while the backward pass still runs, so that this is an upper bound of what the exchange
costs; a slower link between hosts is not in it, but for the rate that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.tables import table

PROCESSES = (4, 8, 16)


def _ring(processes: int) -> float:
    """How often the gradients' bytes cross a process's link."""
    return 2 * (processes - 1) / processes


def ratio(entries: Sequence[dict[str, Any]], processes: int, link: float | None = None) -> float:
    """How many times the images a second of one process.

    entries: one model's and case's, of one process and of several (benchmarks.scale.SCALING).
    link: bytes a second of each process's link; None is what was measured.
    """
    one = next(e for e in entries if e["processes"] == 1)
    most = max(entries, key=lambda e: e["processes"])
    batch = int(one["case"].split(",")[0])
    alone, together = (batch * e["processes"] / e["images_per_second"] for e in (one, most))
    beyond = max(together - alone - most["exchange_seconds"], 0.0)
    exchange = _ring(processes) * most["gradient_bytes"] / (link or _link(most))
    return float(processes * alone / (alone + beyond + exchange))


def _link(entry: dict[str, Any]) -> float:
    """Bytes a second of a process's link while gradients were exchanged."""
    return float(_ring(entry["processes"]) * entry["gradient_bytes"] / entry["exchange_seconds"])


def markdown(scaling: Sequence[dict[str, Any]]) -> str:
    """The table of predictions for every model and case that was measured with 1 and more."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in scaling:
        groups.setdefault((entry["model"], entry["case"]), []).append(entry)
    rows = []
    for (model, case), entries in groups.items():
        most = max(entries, key=lambda e: e["processes"])
        if most.get("exchange_seconds") is None or all(e["processes"] > 1 for e in entries):
            continue
        rows.append(
            [
                model,
                case,
                f"{most['gradient_bytes'] / 1e6:.0f} MB",
                f"{1e3 * most['exchange_seconds']:.2f} ms",
                f"{_link(most) / 1e9:.0f} GB/s",
                *(f"{ratio(entries, n):.2f}x" for n in PROCESSES),
            ]
        )
    if not rows:
        return ""
    header = ["model", "B, HxW of each", "gradients", "exchange", "link"]
    return table([*header, *(f"{n} predicted" for n in PROCESSES)], rows)
