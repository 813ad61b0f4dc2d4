"""A plot of a sweep: nanoseconds per element along each size. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.cases import Case
from benchmarks.ops.sweep import Point, fastest

_SIZES: dict[str, tuple[str, Callable[[Case], int]]] = {
    "D": ("channels D, with R = D / 32 and as many elements", lambda case: case.D),
    "R": ("rank R, at D = 192", lambda case: case.R),
    "N": ("states N, at D = 192, R = 6", lambda case: case.N),
}
_COLORS = ("#0b7285", "#5c7cfa", "#e8590c", "#94d82d")


def plot(points: Sequence[Point], facts: dict[str, object], path: Path) -> None:
    """One panel per size, one line per number of states and dtype, for the choice of "auto"."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = fastest(points)
    figure, panels = pyplot.subplots(1, len(_SIZES), figsize=(13, 4), sharey=True)
    for panel, (size, (label, of)) in zip(panels, _SIZES.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for (axis, case, dtype), point in chosen.items():
            if axis.partition(",")[0] == size and point.nanoseconds is not None:
                name = dtype if size == "N" else f"N = {case.N}, {dtype}"
                lines.setdefault(name, []).append((of(case), point.nanoseconds))
        for i, (name, line) in enumerate(sorted(lines.items())):
            xs, ys = zip(*sorted(line), strict=True)
            panel.plot(xs, ys, "o-", label=name, color=_COLORS[i % len(_COLORS)], markersize=4)
        _finish(panel, label, sorted({x for line in lines.values() for x, _ in line}))
    panels[0].set_ylabel("ns per element, forward + backward")
    figure.suptitle(f"ss2d with its projections, {facts['device']}", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _finish(panel: Any, label: str, ticks: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel(label)
    labels = [
        # Labels of sizes closer than this would overlap.
        "" if nearest and tick < 1.12 * nearest else str(tick)
        for nearest, tick in zip([0, *ticks], ticks, strict=False)
    ]
    panel.set_xticks(ticks, labels, fontsize=7)
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
