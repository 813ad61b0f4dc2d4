"""PNG plots from a results file. Needs matplotlib, which nothing else here does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.cases import Case, ModelCase
from benchmarks.measuring.results import Results, Row
from benchmarks.render import model_report

_COLOURS = {"cuda": "#0b7285", "triton": "#5c7cfa", "cpu": "#0b7285", "pytorch": "#94d82d"}
_COLOURS |= {"ours": "#0b7285", "ours, graph": "#5c7cfa", "ours, compiled": "#94d82d"}
_PEER_COLOURS = {"release": "#868e96", "vmamba": "#ced4da", "mamba-ssm": "#868e96"}


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _timed(results: Results, op: str, mode: str, group: str | None) -> dict[str, list[Row]]:
    """dtype -> rows that were timed."""
    found: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.op == op and row.mode == mode and row.times and group in (None, row.case.group):
            found.setdefault(row.dtype, []).append(row)
    return found


def _median(row: Row) -> float:
    assert row.times is not None
    return row.times.median


def _bars(axes: Any, rows: Sequence[Row], title: str) -> None:
    """Grouped bars of time, logarithmic, with the floor of each case as a line."""
    by_case = list(dict.fromkeys(row.case for row in rows))
    names = sorted({row.competitor for row in rows}, key=lambda n: (n in _PEER_COLOURS, n))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        points = [(by_case.index(r.case), _median(r)) for r in rows if r.competitor == name]
        colour = _COLOURS.get(name) or _PEER_COLOURS.get(name)
        xs = [x - 0.4 + (i + 0.5) * width for x, _ in points]
        axes.bar(xs, [t for _, t in points], width, label=name, color=colour)
    floors = {row.case: row.floor_ms for row in rows if row.floor_ms}
    for x, case in enumerate(by_case):
        if case in floors:
            label = "floor of the device" if x == 0 else None
            axes.hlines(floors[case], x - 0.45, x + 0.45, colors="#e8590c", label=label)
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.set_xticks(range(len(by_case)), [_tick(case) for case in by_case], fontsize=8)
    axes.set_title(title, fontsize=10)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, 2 * top)  # room for the legend above the bars
    axes.legend(fontsize=8, ncols=len(names) + 1, loc="upper center")


def _tick(case: Case | ModelCase) -> str:
    if isinstance(case, ModelCase):
        return f"B={case.B}\n{case.H}x{case.W}"
    return f"B={case.B} D={case.D}\n{case.H}x{case.W}" + (f"\nN={case.N}" if case.N != 16 else "")


def _growth(axes: Any, rows: Sequence[Row], title: str) -> None:
    """Time over the image side for each competitor, compared with growth in proportion to pixels.

    If peak memory was measured too, it is drawn on a separate axis.
    """
    names = list(dict.fromkeys(row.competitor for row in rows))
    for name in names:
        mine = [row for row in rows if row.competitor == name]
        sides = [4 * row.case.H for row in mine]
        axes.plot(sides, [_median(row) for row in mine], "o-", label=name)
    if len(names) == 1:
        last = _median(mine[-1])
        pixels = [last * (side / sides[-1]) ** 2 for side in sides]
        axes.plot(sides, pixels, ":", color="#868e96", label="in proportion to pixels")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("side of the image, pixels")
    axes.set_ylabel("milliseconds")
    axes.set_title(title, fontsize=10)
    used = [(4 * r.case.H, r.extra_bytes / 1e6) for r in rows if r.extra_bytes]
    if len(names) == 1 and used:
        memory = axes.twinx()
        memory.plot(*zip(*used, strict=True), "s--", color="#e8590c", label="peak memory")
        memory.set_yscale("log")
        memory.set_ylabel("extra memory, MB")
        memory.legend(fontsize=8, loc="lower right")
    axes.legend(fontsize=8, loc="upper left")


def _scaling(axes: Any, rows: Sequence[Row], title: str) -> None:
    """How many times faster than on one thread, of each case."""
    for case in dict.fromkeys(row.case for row in rows):
        times = {int(r.competitor.split()[0]): _median(r) for r in rows if r.case == case}
        least = min(times)
        points = [(n, least * times[least] / time) for n, time in sorted(times.items())]
        axes.plot(*zip(*points, strict=True), "o-", label=case.label)
    counts = sorted({int(row.competitor.split()[0]) for row in rows})
    axes.plot(counts, counts, ":", color="#868e96", label="in proportion to threads")
    axes.set_xticks(counts)
    axes.set_xlabel("threads")
    axes.set_ylabel("times as fast as one")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)


_DRAWN = {"sizes": _growth, "threads": _scaling}


def plot(results: Results, folder: Path, prefix: str = "") -> list[Path]:
    """Write one PNG for each op, mode and dtype that was timed; returns their paths."""
    pyplot = _pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    device = results.environment["device"]
    pairs = dict.fromkeys((row.op, row.mode, row.case.group) for row in results.rows)
    for op, mode, group in pairs:
        for dtype, rows in _timed(results, op, mode, group).items():
            figure, axes = pyplot.subplots(figsize=(max(5, 1.2 * len({r.case for r in rows})), 3.6))
            what = model_report.network(op)
            title = f"{what}, {mode.replace('_', ' + ')}, {dtype}, {device}"
            _DRAWN.get(group, _bars)(axes, rows, title)
            figure.tight_layout()
            path = folder / f"{prefix}{op}_{mode}_{group}_{dtype}.png"
            figure.savefig(path, dpi=150)
            pyplot.close(figure)
            written.append(path)
    return written
