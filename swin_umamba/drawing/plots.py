"""Figures of a run: curves, and an input with ground truth and prediction."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from swin_umamba.common.files import replacing
from swin_umamba.drawing.overlays import ADDED, CORRECT, MISSED, displayable

DPI = 100
WIDTH = 1600  # pixels
INK, FAINT = "#1f2430", "#8a93a3"
TRUTH = "#4cc9f0"
DSC, ACCURACY, HELD_OUT_LOSS = "dsc", "accuracy", "held_out_loss"
PRETRAINING_LOSS = "Training loss"
LOSS, SCORE, RATE = "#5b6ee1", "#e07a1f", "#2a9d8f"


@dataclass(frozen=True)
class Theme:
    """Colors of everything but the curves. paper: None for a transparent background."""

    ink: str = INK
    faint: str = FAINT
    grid: str = "#e6e9ef"
    axis: str = "#c9cfd9"
    paper: str | None = "white"


PLAIN, ON_LIGHT = Theme(), Theme(paper=None)
ON_DARK = Theme(ink="#e8ebf2", faint="#9aa3b5", grid="#2b303b", axis="#4a5162", paper=None)


def save_curves(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Draw loss and DSC over the iterations of a run's log, as a PNG of 1600x520 pixels."""
    figure = _figure(520)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, records)
    _draw_score(right, records)
    figure.tight_layout(pad=2.0, w_pad=4.0)
    _save(figure, path)


def curves_png(records: Sequence[dict[str, Any]], theme: Theme) -> bytes:
    """Loss, DSC and learning rate over the iterations of a run's log, as a PNG of 1600x430."""
    figure = _figure(430, theme)
    loss, score, rate = figure.subplots(1, 3)
    _draw_loss(loss, records, theme)
    _draw_score(score, records, theme)
    _draw_rate(rate, records, theme)
    return _png(figure)


def save_pretraining_curves(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Draw loss and score over the iterations of a pretraining's log, as a PNG of 1600x520."""
    figure = _figure(520)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, records, title=PRETRAINING_LOSS)
    _draw_score(right, records, PLAIN, *_score_of_pretraining(records))
    figure.tight_layout(pad=2.0, w_pad=4.0)
    _save(figure, path)


def pretraining_curves_png(records: Sequence[dict[str, Any]], theme: Theme) -> bytes:
    """Loss, score and learning rate of a pretraining's log, as a PNG of 1600x430."""
    figure = _figure(430, theme)
    loss, score, rate = figure.subplots(1, 3)
    _draw_loss(loss, records, theme, PRETRAINING_LOSS)
    _draw_score(score, records, theme, *_score_of_pretraining(records))
    _draw_rate(rate, records, theme)
    return _png(figure)


def _score_of_pretraining(records: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The log key of a pretraining's score, and its title."""
    if any(record.get(ACCURACY) is not None for record in records):
        return ACCURACY, "Accuracy on held-out images"
    return HELD_OUT_LOSS, "Loss on held-out images"


def save_picture(
    path: Path,
    image: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    prediction: npt.NDArray[np.int64],
    records: Sequence[dict[str, Any]],
    *,
    title: str,
    prediction_title: str,
) -> None:
    """Draw input, truth, prediction and curves side by side, as a PNG 1600 pixels wide.

    image: (C, H, W); truth, prediction: (H, W) class indices, 0 the background. records: at least
    one, as in a run's log.
    """
    height, width = truth.shape
    panel = (WIDTH - 2 * 24 - 2 * 16) // 3
    rows = (64, 40, round(panel * height / width), 62, 230, 54)  # pixels, from the top
    total = sum(rows)
    figure = _figure(total)
    figure.text(24 / WIDTH, 1 - 40 / total, title, fontsize=21, weight="bold", color=INK)

    bottom = (rows[3] + rows[4] + rows[5]) / total
    grey = displayable(image)
    titles = ("Input, held out from training", "Ground truth", prediction_title)
    for i, name in enumerate(titles):
        left = (24 + i * (panel + 16)) / WIDTH
        axes = figure.add_axes((left, bottom, panel / WIDTH, rows[2] / total))
        axes.set_axis_off()
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        figure.text(left, bottom + (rows[2] + 12) / total, name, fontsize=17, color=INK)
        if i == 1:
            _outline(axes, truth > 0, TRUTH)
        if i == 2:
            _draw_agreement(axes, truth, prediction)
    figure.legend(
        handles=[
            Patch(color=CORRECT, label="correct"),
            Patch(color=ADDED, label="false positive"),
            Patch(color=MISSED, label="missed"),
        ],
        loc="upper right",
        bbox_to_anchor=(1 - 20 / WIDTH, 1 - 8 / total),
        ncols=3,
        frameon=False,
        fontsize=15,
        labelcolor=INK,
        handlelength=1.0,
    )
    panels: tuple[Callable[..., None], ...] = (_draw_loss, _draw_score)
    for i, draw in enumerate(panels):
        left = (84 + i * (WIDTH / 2)) / WIDTH
        size = (WIDTH / 2 - 84 - 24) / WIDTH, rows[4] / total
        draw(figure.add_axes((left, rows[5] / total, *size)), records)
    _save(figure, path)


def _draw_loss(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    theme: Theme = PLAIN,
    title: str = "Training loss (Dice + cross-entropy)",
) -> None:
    finite = [(r["iteration"], r["loss"]) for r in records if r["loss"] is not None]
    iterations, losses = np.array(finite, dtype=np.float64).reshape(-1, 2).T
    _style(axes, title, records, theme)
    axes.plot(iterations, losses, color=LOSS, alpha=0.25, linewidth=1.2)
    axes.plot(iterations, _smooth(losses), color=LOSS, linewidth=2.6)


def _draw_score(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    theme: Theme = PLAIN,
    name: str = DSC,
    title: str = "DSC in validation",
) -> None:
    scored = [(r["iteration"], r[name]) for r in records if r.get(name) is not None]
    _style(axes, title, records, theme)
    axes.set_ylim(0, 1.02 if name == DSC else None)
    if not scored:
        return
    iterations, scores = zip(*scored, strict=True)
    axes.plot(iterations, scores, color=SCORE, linewidth=2.6, marker="o", markersize=6)
    axes.annotate(
        f"{scores[-1]:.3f}",
        (iterations[-1], scores[-1]),
        xytext=(0, -12),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=17,
        weight="bold",
        color=SCORE,
    )


def _draw_rate(axes: Axes, records: Sequence[dict[str, Any]], theme: Theme) -> None:
    _style(axes, "Learning rate", records, theme)
    axes.plot([r["iteration"] for r in records], [r["lr"] for r in records], color=RATE, lw=2.6)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")


def _style(axes: Axes, title: str, records: Sequence[dict[str, Any]], theme: Theme) -> None:
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", fontsize=17, pad=10, color=theme.ink)
    axes.set_xlabel("iteration", fontsize=13, color=theme.faint, loc="right", labelpad=2)
    axes.tick_params(labelsize=13, color=theme.faint, labelcolor=theme.faint, length=0)
    axes.tick_params(axis="x", pad=8)
    axes.grid(axis="y", color=theme.grid, linewidth=1.0)
    axes.set_axisbelow(True)
    axes.set_xlim(0, records[-1]["iteration"] * 1.015)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.axis)


def _draw_agreement(
    axes: Axes, truth: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64]
) -> None:
    correct = (truth == prediction) & (truth > 0)
    for pixels, colour, opacity in (
        (correct, CORRECT, 0.38),
        ((prediction > 0) & ~correct, ADDED, 0.85),
        ((truth > 0) & (prediction == 0), MISSED, 0.85),
    ):
        layer = np.zeros((*pixels.shape, 4))
        layer[..., :3] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        layer[..., 3] = pixels * opacity
        axes.imshow(layer, interpolation="nearest", aspect="auto")
    _outline(axes, prediction > 0, CORRECT)


def _outline(axes: Axes, pixels: npt.NDArray[np.bool_], colour: str) -> None:
    if pixels.any() and not pixels.all():
        axes.contour(pixels.astype(float), levels=[0.5], colors=colour, linewidths=2.2)


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Moving average of each value over a twentieth of all values."""
    reach = max(len(values) // 40, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    start, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    smooth: npt.NDArray[np.float64] = (sums[end] - sums[start]) / (end - start)
    return smooth


def _figure(height: int, theme: Theme = PLAIN) -> Figure:
    paper = theme.paper or "none"
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=paper)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    figure.tight_layout(pad=1.0, w_pad=3.0)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
