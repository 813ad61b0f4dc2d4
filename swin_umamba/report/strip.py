"""A strip plot: every case as a dot on a line from 0 to 1."""

from __future__ import annotations

from html import escape

import numpy as np

from swin_umamba.drawing.overlays import class_colour
from swin_umamba.evaluate import Scores
from swin_umamba.evaluate.scores import mean_of_defined

WIDTH, ROW, LEFT, RIGHT = 520, 46, 16, 16


def strip(scores: Scores) -> str:
    """SVG with a row per class: the DSC of its cases as dots, and their mean as a stroke."""
    across = WIDTH - LEFT - RIGHT
    height = ROW * len(scores.classes) + 22
    parts = []
    for i, (name, column) in enumerate(zip(scores.classes, scores.values("dsc").T, strict=True)):
        y, colour = ROW * i + 30, class_colour(i + 1)
        parts.append(f'<text class=name x="{LEFT}" y="{y - 14}">{escape(name)}</text>')
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        for case, value in zip(scores.cases, column, strict=True):
            if not np.isnan(value):
                parts.append(
                    f'<circle cx="{LEFT + across * value:.1f}" cy="{y}" r="5" fill="{colour}">'
                    f"<title>{escape(case.case)}: {value:.3f}</title></circle>"
                )
        mean = mean_of_defined(column)
        if not np.isnan(mean):
            x = LEFT + across * mean
            parts.append(f'<line class=mean x1="{x:.1f}" x2="{x:.1f}" y1="{y - 9}" y2="{y + 9}"/>')
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<text x="{LEFT + across * tick:.1f}" y="{height - 4}" text-anchor="middle">'
            f"{tick:g}</text>"
        )
    return f'<svg class=strip viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
