"""The HTML page."""

from __future__ import annotations

import dataclasses
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from swin_umamba.common.encoders import network_name
from swin_umamba.common.files import resolved
from swin_umamba.data.io.formats import NIFTI_ENDINGS
from swin_umamba.drawing.overlays import class_colour
from swin_umamba.drawing.plots import ON_DARK, ON_LIGHT, Theme, curves_png
from swin_umamba.evaluate import CaseScores, Scores
from swin_umamba.evaluate.scores import METRICS
from swin_umamba.report.cases import Picture, mean_dsc
from swin_umamba.report.run import LoadedRun
from swin_umamba.report.strip import strip
from swin_umamba.report.style import CSS, ERRORS
from swin_umamba.train import TrainConfig


@dataclass(frozen=True)
class Cases:
    """Scores and pictures of the run's validation cases."""

    scores: Scores
    order: list[CaseScores]  # worst first, without empty ones
    worst: list[Picture]  # all of them, if there are few
    best: list[Picture]
    cleaned: tuple[str, ...] = ()  # classes reduced to their largest component


def page(run: LoadedRun, cases: Cases | None) -> str:
    """One self-contained HTML document."""
    title = f"{resolved(run.folder).name}: Swin-UMamba training report"
    if cases is None:
        scored = (
            "<h2>Scores</h2><p class=card>This run was not trained from a dataset, or has no"
            " cases to validate on: there is nothing to score case by case.</p>"
        )
    else:
        scored = _scores(run, cases) + _pictures(cases)
    body = _header(run) + _tiles(run, cases) + _curves(run) + scored + _times(run) + _setting(run)
    return document(title, body)


def document(title: str, body: str) -> str:
    """A page with a title, as text, and a body, as HTML."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Prevents requests for an icon and for anything not in this file.
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _header(run: LoadedRun) -> str:
    on = "" if run.plan is None else f" on {run.plan.dataset}"
    when = run.environment.get("date", "") if run.trained_there else ""
    return (
        f"<h1>{escape(resolved(run.folder).name)}</h1>"
        f"<p class=faint>{escape(network_name(run.config.model, run.config.encoder))}{escape(on)}"
        f"{escape(', started ' + when if when else '')}</p>\n"
    )


def _tiles(run: LoadedRun, cases: Cases | None) -> str:
    tiles: list[tuple[str, str, str]] = []
    if cases is not None:
        scores, several = cases.scores, len(cases.scores.classes) > 1
        for metric in scores.metrics():
            means = [mean for _, mean, _ in scores.means(metric) if not math.isnan(mean)]
            value = sum(means) / len(means) if means else math.nan
            what = {
                "dsc": "mean over the classes" if several else scores.classes[0],
                "dsc_merged": "all classes merged",
                "nsd": f"tolerance {_length(run, scores.tolerance)}",
                "f1": "of objects, mean over cases",
            }[metric]
            tiles.append((METRICS[metric], number(value), what))
    if run.best_dsc is not None:
        tiles.append(
            ("Validation DSC", number(run.best_dsc), "best while training, mean over the classes")
        )
    steps = f"{run.records[-1]['iteration']:,} steps"
    if run.skipped:
        steps += f", {run.skipped} skipped"
    if run.waited is not None:
        steps += f", {run.waited:.1%} of it waiting for data"
    tiles.append(("Training", duration(run.seconds), steps))
    if run.split is not None:
        tiles.append(
            (
                "Cases",
                f"{len(run.split.train)} + {len(run.split.val)}",
                "training + validation cases",
            )
        )
    return tile_row(tiles)


def tile_row(tiles: Iterable[tuple[str, str, str]]) -> str:
    """Numbers side by side, each with its name and a description."""
    return (
        "<div class=tiles>"
        + "".join(
            f'<div class="card tile"><span>{escape(name)}</span><b>{escape(value)}</b>'
            f"<span>{escape(what)}</span></div>"
            for name, value, what in tiles
        )
        + "</div>\n"
    )


def _curves(run: LoadedRun) -> str:
    return curves_card(
        lambda theme: curves_png(run.records, theme),
        "Training loss, DSC in validation and learning rate over the iterations",
    )


def curves_card(draw: Callable[[Theme], bytes], alt: str) -> str:
    """A picture of 1600x430 as PNG, drawn for light and dark pages."""
    light, dark = (_inlined(draw(theme)) for theme in (ON_LIGHT, ON_DARK))
    return (
        "<h2>Curves</h2><div class=card><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class=curves src="{light}" width=1600 height=430'
        f' alt="{escape(alt)}">'
        "</picture></div>\n"
    )


def _scores(run: LoadedRun, cases: Cases) -> str:
    scores, config = cases.scores, run.config
    if run.split is not None and set(run.split.train) & set(run.split.val):
        honest = (
            "The run was trained on these cases: their scores do not tell how well new ones do."
        )
    else:
        honest = (
            f"Cases of fold {config.fold}, none of which was trained on. The best weights were"
            " chosen by their DSC, so other cases may score a little lower."
        )
    if cases.cleaned:
        honest += f" Of {', '.join(cases.cleaned)}, only the largest component counts."
    columns = [metric for metric in scores.metrics() if metric not in ("dsc_merged", "f1")]
    means = {metric: scores.means(metric) for metric in scores.metrics()}
    rows = []
    for i, name in enumerate(scores.classes):
        count = means["dsc"][i][2]
        values = [number(means[metric][i][1]) for metric in columns]
        empty = len(scores.cases) - count
        rows.append([_swatch(i + 1) + escape(name), *values, str(count), str(empty)])
    if "dsc_merged" in means:
        ((name, mean, count),) = means["dsc_merged"]
        blanks = [""] * (len(columns) - 1)
        rows.append([name, number(mean), *blanks, str(count), str(len(scores.cases) - count)])
    heads = ["class", *(METRICS[metric] for metric in columns), "cases", "empty in both"]
    objects, told = scores.objects(), ""
    if objects is not None:
        told = (
            f"<p class=small>Objects of all cases together: {objects.tp} found,"
            f" {objects.fn} missed, {objects.fp} false positives; precision"
            f" {number(objects.precision)}, recall {number(objects.recall)}, pooled F1"
            f" {number(objects.f1)}.</p>"
        )
    return (
        f"<h2>Scores</h2><p class=faint>{escape(honest)} NSD is of the contour, within"
        f" {escape(_length(run, scores.tolerance))}.</p>"
        f"<div class=columns><div class=card>{table(heads, rows)}{told}</div>"
        f"<div class=card><h3>DSC of every case</h3>{strip(scores)}</div></div>\n"
        f"<details><summary>All {len(scores.cases)} cases</summary>"
        f'<div class="card scroll">{_all_cases(cases)}</div></details>\n'
    )


def _all_cases(cases: Cases) -> str:
    scores = cases.scores
    heads = ["case"] + [
        f"{METRICS[metric]} {name}" for metric in scores.metrics() for name in scores.names(metric)
    ]
    empty = [case for case in scores.cases if math.isnan(mean_dsc(case))]
    rows = [
        [escape(case.case)] + [number(v) for m in scores.metrics() for v in case.values(m)]
        for case in [*cases.order, *empty]
    ]
    return table(heads, rows)


def _pictures(cases: Cases) -> str:
    if not cases.worst:
        return ""
    legend = "".join(
        f"<span>{_box(colour)}{escape(name)}</span>" for name, colour in ERRORS.items()
    )
    shown = f"<h2>Cases</h2><div class=legend>{legend}</div>"
    heads = ("Worst", "Best") if cases.best else ("All, worst first", "")
    for head, pictures in zip(heads, (cases.worst, cases.best), strict=True):
        if pictures:
            shown += f"<h3>{head}</h3>" + "".join(map(_picture, pictures))
    return shown + "\n"


def _picture(picture: Picture) -> str:
    blank = _blank(*picture.size)
    panels = "".join(
        f'<figure><img class=panel src="{_inlined(layer) if layer else blank}"'
        f' alt="{escape(name)} of {escape(picture.case)}"><figcaption>{name}</figcaption></figure>'
        for name, layer in (
            ("Input", None),
            ("Ground truth", picture.truth),
            ("Prediction", picture.prediction),
            ("Right and wrong", picture.errors),
        )
    )
    return (
        f'<section class="card case" style="--input:url({_inlined(picture.image)})"><header>'
        f"<b>{escape(picture.case)}</b><span class=dsc>DSC {number(picture.dsc)}</span>"
        f'<span class="faint small">{escape(picture.place)}</span></header>'
        f"<div class=panels>{panels}</div></section>"
    )


def _times(run: LoadedRun) -> str:
    if not run.overlays:
        return ""
    rows = "".join(
        f'<section class="card case"><header><b>{escape(case)}</b></header><div class=times>'
        + "".join(
            f'<figure><img src="{_inlined(path.read_bytes())}" alt="after {at} iterations">'
            f"<figcaption>{at:,}</figcaption></figure>"
            for at, path in times
        )
        + "</div></section>"
        for case, times in run.overlays.items()
    )
    return f"<h2>Over the iterations</h2>{rows}\n"


def _setting(run: LoadedRun) -> str:
    default = {f.name: getattr(TrainConfig(), f.name) for f in dataclasses.fields(TrainConfig)}
    config = dataclasses.asdict(run.config)
    changed = {name: value for name, value in config.items() if value != default[name]}
    usual = {name: value for name, value in config.items() if name not in changed}
    cards = [
        f"<h3>Configuration</h3>{facts_table(changed)}<details><summary>{len(usual)} fields have"
        f" their default</summary>{facts_table(usual)}</details>"
    ]
    if run.plan is not None and run.split is not None:
        plan, split = run.plan, run.split
        cards.append(
            "<h3>Data</h3>"
            + facts_table(
                {
                    "dataset": plan.dataset,
                    "classes": ", ".join(plan.labels),
                    "channels": ", ".join(plan.channel_names),
                    "normalization": ", ".join(plan.normalization),
                    "in-plane spacing": " x ".join(f"{s:g}" for s in plan.spacing),
                    "slices along axis": plan.axis,
                    "files": plan.file_ending,
                    "trained on": f"{len(split.train)} cases",
                    "validated on": ", ".join(split.val) or "none",
                }
            )
        )
    if run.trained_there:
        head, note = "Environment", ""
    else:
        head = "Environment of this report"
        note = "<p class='faint small'>The run did not record what it was trained with.</p>"
    cards.append(f"<h3>{head}</h3>{note}{facts_table(run.environment)}")
    return (
        "<h2>Setting</h2><div class=columns>"
        + "".join(f"<div class=card>{card}</div>" for card in cards)
        + "</div>\n"
    )


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values, one row each."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_told(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table class=facts>{rows}</table>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """heads are text, rows are HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=scroll>{table}</div>"


def _swatch(label: int) -> str:
    return _box(class_colour(label))


def _box(colour: str) -> str:
    return f'<span class=swatch style="background:{colour}"></span>'


def _blank(width: int, height: int) -> str:
    return (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'"
        f" width='{width}' height='{height}'/%3E"
    )


def _inlined(file: bytes) -> str:
    return "data:image/png;base64," + b64encode(file).decode()


def _length(run: LoadedRun, value: float) -> str:
    volumes = run.plan is not None and run.plan.file_ending.lower() in NIFTI_ENDINGS
    return f"{value:g} {'mm' if volumes else 'px'}"


def number(value: float) -> str:
    """A score as displayed."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def duration(seconds: float) -> str:
    """A time as displayed."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 10:
        return f"{minutes:.1f} min"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_told, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
