"""Images of effective receptive fields, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from swin_umamba.common.files import replacing
from swin_umamba.drawing.plots import DPI, INK

_PANEL = 420  # pixels
_LINE, _TITLE = 24, 36  # height in pixels and length in characters of a panel's title
_DECADES = 4  # range below the maximum that the colors distinguish


def save_fields(path: Path, fields: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Draw fields (H, W) by name as a PNG, in colors of their logarithms.

    Each is scaled by its own maximum.
    """
    titles = [textwrap.fill(name, _TITLE) for name in fields]
    height = _PANEL + 16 + _LINE * max(title.count("\n") + 1 for title in titles)
    size = (_PANEL * len(fields) / DPI, height / DPI)
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(fields), squeeze=False)[0]
    for axes, title, field in zip(panels, titles, fields.values(), strict=True):
        levels = np.log10(np.maximum(field / field.max(), 10.0**-_DECADES))
        axes.imshow(levels, cmap="magma", vmin=-_DECADES, vmax=0, interpolation="nearest")
        axes.set_title(title, fontsize=12, color=INK)
        axes.set_axis_off()
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
