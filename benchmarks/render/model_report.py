"""Markdown tables of whole models: one for each model, mode and dtype."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring.results import OK, Row
from benchmarks.measuring.tables import milliseconds, table, unique

TITLES = {
    "swin_umamba": "Swin-UMamba",
    "swin_umamba_d": "Swin-UMamba†",
    "swin_umamba_v1": "Swin-UMamba, first version",
}
_WHAT = {
    "training": "training step: forward, loss, backward",
    "inference": "inference: the finest logits",
}


def title(row: Row) -> str:
    return f"{TITLES[row.op]}, {_WHAT[row.mode]}; {row.dtype}"


def markdown(rows: Sequence[Row]) -> str:
    """A table of one model, mode and dtype: median ms, peak memory beyond weights and inputs."""
    names = unique(row.competitor for row in rows)
    by_key = {(row.case, row.competitor): row for row in rows}
    ours = unique(row.competitor for row in rows if row.ours)
    peers = [name for name in names if name not in ours]
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        found = {name: by_key.get((case, name)) for name in names}
        mine = [row for row in found.values() if row is not None and row.ours]
        cells = [_cell(row) for row in found.values()]
        lines.append([case.label, *cells, *(_ratio(mine, found[name]) for name in peers)])
    return table(["B, HxW", *names, *(f"best against {name}" for name in peers)], lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.times is None:
        return row.status
    memory = "" if row.extra_bytes is None else f" / {row.extra_bytes / 1e6:.0f} MB"
    return f"{milliseconds(row.times.median)}{memory}"


def _ratio(mine: Sequence[Row], peer: Row | None) -> str:
    """How many times faster our fastest is, and the share of the peer's memory ours needs."""
    medians = [row.times.median for row in mine if row.status == OK and row.times is not None]
    if not medians or peer is None or peer.times is None:
        return "-"
    text = f"{peer.times.median / min(medians):.2f}x"
    sizes = [row.extra_bytes for row in mine if row.extra_bytes is not None]
    if sizes and peer.extra_bytes:
        text += f", {min(sizes) / peer.extra_bytes:.2f} of the memory"
    return text
