"""Draw scan_directions.png: the four orders in which the op visits an image.

    python docs/images/draw_scan_directions.py

The orders are those of the package itself, so the picture shows what the code does.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from swin_umamba_ops.scan_order import visiting_order

HEIGHT, WIDTH = 4, 5
DPI, PIXELS = 100, (1600, 330)
INK, PAPER = "#1f2430", "white"
COLOURS = ("#4361ee", "#0f9d8a", "#e07a1f", "#c9307f")
TITLES = ("row by row", "column by column", "rows, backwards", "columns, backwards")
CELL = 0.84  # of the distance between two cells


def draw(path: Path) -> None:
    """Write the picture."""
    figure = Figure(figsize=(PIXELS[0] / DPI, PIXELS[1] / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 5)
    figure.subplots_adjust(left=0.012, right=0.988, top=0.84, bottom=0.02, wspace=0.08)
    for k, order in enumerate(visiting_order(HEIGHT, WIDTH).tolist()):
        _prepare(panels[k], rf"$\pi_{k}$", TITLES[k], COLOURS[k])
        _draw_order(panels[k], [divmod(position, WIDTH) for position in order], COLOURS[k])
    _prepare(panels[4], r"$y$", "the sum of all four", INK)
    _draw_merge(panels[4])
    figure.savefig(path)


def _prepare(axes: Axes, symbol: str, title: str, colour: str) -> None:
    axes.set_xlim(-0.62, WIDTH - 0.38)
    axes.set_ylim(HEIGHT - 0.38, -0.62)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.text(-0.42, -0.76, symbol, fontsize=25, color=colour, va="baseline")
    axes.text(0.42, -0.76, title, fontsize=16, color=INK, va="baseline")


def _cell(axes: Axes, row: float, column: float, colour: object) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (column - CELL / 2 + 0.12, row - CELL / 2 + 0.12),
            CELL - 0.24,
            CELL - 0.24,
            boxstyle="round,pad=0.12,rounding_size=0.16",
            facecolor=colour,
            edgecolor="none",
        )
    )


def _draw_order(axes: Axes, cells: list[tuple[int, int]], colour: str) -> None:
    """Cells darken along the way; lines lead through each row or column, faint ones to the next."""
    shades = LinearSegmentedColormap.from_list("shades", ("#eef1f6", colour))
    for step, (row, column) in enumerate(cells):
        share = step / (len(cells) - 1)
        _cell(axes, row, column, shades(0.06 + 0.94 * share))
        axes.text(
            column - 0.35,
            row - 0.33,
            str(step),
            fontsize=9.5,
            ha="left",
            va="top",
            color=PAPER if share > 0.5 else INK,
        )
    runs = [[cells[0]]]
    for here, there in pairwise(cells):
        if abs(here[0] - there[0]) + abs(here[1] - there[1]) == 1:
            runs[-1].append(there)
            continue
        axes.plot(
            [here[1], there[1]],
            [here[0], there[0]],
            color=INK,
            alpha=0.35,
            linewidth=1.1,
            linestyle=(0, (2, 2.2)),
        )
        runs.append([there])
    for run in runs:
        _arrow(axes, run[0], run[-1], INK, 2.0)
    first = cells[0]
    axes.plot(first[1], first[0], "o", markersize=9, color=PAPER, mec=INK, mew=2.0, zorder=5)


def _draw_merge(axes: Axes) -> None:
    """One position hears from all of the image: each order brings what it visited before."""
    pixel = (1, 2)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        _cell(axes, row, column, "#eef1f6")
    _cell(axes, *pixel, INK)
    axes.text(pixel[1], pixel[0], "$p$", fontsize=19, color=PAPER, ha="center", va="center")
    reach = 0.52
    ends = {
        0: ((pixel[0], -0.42), (pixel[0], pixel[1] - reach)),
        1: ((-0.42, pixel[1]), (pixel[0] - reach, pixel[1])),
        2: ((pixel[0], WIDTH - 0.58), (pixel[0], pixel[1] + reach)),
        3: ((HEIGHT - 0.58, pixel[1]), (pixel[0] + reach, pixel[1])),
    }
    for k, (start, end) in ends.items():
        _arrow(axes, start, end, COLOURS[k], 4.5)
    for k, (row, column) in enumerate(((0.68, 0.5), (-0.1, 2.45), (0.68, 3.5), (2.6, 2.45))):
        axes.text(column, row, f"$y_{k}$", fontsize=17, color=COLOURS[k], ha="center", va="center")


def _arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, width: float
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            (start[1], start[0]),
            (end[1], end[0]),
            arrowstyle=f"-|>,head_length={3 + width},head_width={1.4 + width / 2}",
            linewidth=width,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            zorder=4,
        )
    )


if __name__ == "__main__":
    draw(Path(__file__).with_name("scan_directions.png"))
