"""Predict throughput on more GPUs than measured: a ring all-reduce of gradients after each step.

The time of a step with n processes is modeled as that of one process, plus the exchange of all
gradients, plus whatever the largest measured number of processes needed beyond both (waiting for
each other, more launches). A ring moves 2 (n - 1) / n times the gradient bytes over each process's
link, at the rate of a measured all-reduce of the same size. DDP overlaps the exchange with the
backward pass, so this is an upper bound of its cost; a slower link between hosts is only considered
if its rate is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring.tables import table

PROCESSES = (4, 8, 16)


def _ring(processes: int) -> float:
    """How many times the gradient bytes cross a process's link."""
    return 2 * (processes - 1) / processes


def ratio(entries: Sequence[dict[str, Any]], processes: int, link: float | None = None) -> float:
    """The ratio of images per second to one process.

    entries: for one model and case, with one process and with several (benchmarks.scale.SCALING).
    link: bytes per second of each process's link; None for the measured rate.
    """
    one = next(e for e in entries if e["processes"] == 1)
    most = max(entries, key=lambda e: e["processes"])
    batch = int(one["case"].split(",")[0])
    alone, together = (batch * e["processes"] / e["images_per_second"] for e in (one, most))
    beyond = max(together - alone - most["exchange_seconds"], 0.0)
    exchange = _ring(processes) * most["gradient_bytes"] / (link or _link(most))
    return float(processes * alone / (alone + beyond + exchange))


def _link(entry: dict[str, Any]) -> float:
    """Bytes per second of a process's link during the exchange of gradients."""
    return float(_ring(entry["processes"]) * entry["gradient_bytes"] / entry["exchange_seconds"])


def markdown(scaling: Sequence[dict[str, Any]]) -> str:
    """The table of predictions for every model and case measured with 1 and more processes."""
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
