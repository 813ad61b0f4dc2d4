"""Markdown tables of whole models: one for each model, mode and dtype."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measuring.results import OK, Row
from benchmarks.measuring.tables import milliseconds, table, unique

TITLES = {
    "swin_umamba": "Swin-UMamba",
    "swin_umamba_d": "Swin-UMamba†",
    "swin_umamba_v1": "Swin-UMamba, first version",
    "dynunet": "nnU-Net's network",
    "resenc_m": "nnU-Net's ResEnc-M",
}
NNUNET = "dynunet"
BASELINES = (NNUNET, "resenc_m")
_WHAT = {
    "training": "training step: forward, loss, backward",
    "inference": "inference: the finest logits",
}


def is_network(op: str) -> bool:
    """Whether a row's op is a whole model, with or without the name of its encoder."""
    return op.partition("+")[0] in TITLES


def network(op: str) -> str:
    """Display name of a row's op; others than networks are unchanged."""
    name, _, encoder = op.partition("+")
    return TITLES.get(name, op) + (f" with {encoder}" if encoder else "")


def title(row: Row) -> str:
    return f"{network(row.op)}, {_WHAT[row.mode]}; {row.dtype}"


def markdown(rows: Sequence[Row]) -> str:
    """A table of one model, mode and dtype: median ms, peak memory beyond weights and inputs."""
    names = unique(row.competitor for row in rows)
    by_key = {(row.case, row.competitor): row for row in rows}
    ours = unique(row.competitor for row in rows if row.ours)
    peers = [name for name in names if name not in ours] if ours else []
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
    """The speedup of our fastest variant, and its memory relative to the other implementation."""
    medians = [row.times.median for row in mine if row.status == OK and row.times is not None]
    if not medians or peer is None or peer.times is None:
        return "-"
    text = f"{peer.times.median / min(medians):.2f}x"
    sizes = [row.extra_bytes for row in mine if row.extra_bytes is not None]
    if sizes and peer.extra_bytes:
        text += f", {min(sizes) / peer.extra_bytes:.2f} of the memory"
    return text


def side_by_side(rows: Sequence[Row]) -> list[str]:
    """All networks in one table per mode and dtype, relative to nnU-Net's network.

    For each network its fastest variant, and the memory of the eager one.
    """
    if not any(row.op == NNUNET for row in rows):
        return []
    rows = [row for row in rows if row.ours or row.op in BASELINES]
    parts = ["### Beside nnU-Net's network"]
    for mode, dtype in dict.fromkeys((row.mode, row.dtype) for row in rows):
        chosen = [row for row in rows if (row.mode, row.dtype, row.status) == (mode, dtype, OK)]
        cases = list(dict.fromkeys(row.case for row in chosen))
        lines = []
        for op in dict.fromkeys(row.op for row in chosen):
            found = [[row for row in chosen if (row.op, row.case) == (op, case)] for case in cases]
            base = [
                [row for row in chosen if (row.op, row.case) == (NNUNET, case)] for case in cases
            ]
            lines.append([network(op), *map(_beside, found, base)])
        heads = [case.label for case in cases]
        parts += [f"{_WHAT[mode]}; {dtype}", table(["network", *heads], lines)]
    parts.append(
        "Median ms of the fastest form (times nnU-Net's) / peak memory of the eager form / energy"
        " of the fastest form, where it was measured."
    )
    return parts


def _beside(rows: Sequence[Row], base: Sequence[Row]) -> str:
    if not rows:
        return "-"
    fastest = min(rows, key=_median)
    ratio = f" ({_median(fastest) / min(map(_median, base)):.2f}x)" if base else ""
    sizes = [row.extra_bytes for row in rows if row.extra_bytes is not None]
    memory = f" / {min(sizes) / 1e6:.0f} MB" if sizes else ""
    energy = "" if fastest.joules is None else f" / {fastest.joules:.1f} J"
    return f"{milliseconds(_median(fastest))}{ratio}{memory}{energy}"


def _median(row: Row) -> float:
    assert row.times is not None, f"{row.key} was not timed"
    return row.times.median
