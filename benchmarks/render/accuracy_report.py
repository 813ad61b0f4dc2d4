"""Tables and plots of `python -m benchmarks accuracy`: means with their intervals, curves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.tables import table, unique

_RESAMPLES = 10_000
BASELINE = "dynunet"
_METRICS = {
    "dsc": "DSC",
    "dsc_merged": "DSC, all classes merged",
    "nsd": "NSD",
    "f1": "F1 of objects",
}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over cases and its 95 % percentile bootstrap interval."""
    given = np.array(values, np.float64)
    draws = np.random.default_rng(0).choice(given, (_RESAMPLES, given.size)).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(given.mean()), float(low), float(high)


def case_values(scores: dict[str, Any], metric: str) -> dict[str, float]:
    """The score of each case, a mean over its classes; cases without any are left out."""
    found = {}
    for case in scores["cases"]:
        if metric == "f1":
            values = [case["instances"]["f1"]] if "instances" in case else []
        else:
            values = case.get(metric) or []
        defined = [v for v in values if v is not None and not math.isnan(v)]
        if defined:
            found[case["case"]] = float(np.mean(defined))
    return found


def scored_runs(facts: dict[str, Any], dataset: str, model: str) -> list[dict[str, Any]]:
    """The runs of a model on a dataset that have scores, by seed."""
    return [
        r
        for r in facts["runs"]
        if r["dataset"] == dataset and r["model"] == model and "scores" in r
    ]


def _shown(runs: Iterable[dict[str, Any]], metric: str) -> str:
    """The first seed's mean with its interval, and the other seeds' means."""
    shown: list[str] = []
    for r in runs:
        values = list(case_values(r["scores"], metric).values())
        if not values:
            continue
        mean, low, high = interval(values)
        shown.append(f"{mean:.3f}" if shown else f"{mean:.3f} ({low:.3f} to {high:.3f})")
    return "; ".join(shown) or "-"


def difference(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], metric: str
) -> str:
    """Mean of first - second over the cases of both, with its interval.

    A case counts with its mean over the runs, so the interval does not cover other seeds.
    """
    one, two = _over_runs(first, metric), _over_runs(second, metric)
    pairs = [one[name] - two[name] for name in one if name in two]
    if not pairs:
        return "-"
    mean, low, high = interval(pairs)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def _over_runs(runs: Sequence[dict[str, Any]], metric: str) -> dict[str, float]:
    """The mean score over runs of each case that all of them score."""
    found = [case_values(run["scores"], metric) for run in runs]
    return {
        name: float(np.mean([values[name] for values in found]))
        for name in found[0]
        if all(name in values for values in found)
    }


def _options(run: dict[str, Any]) -> str:
    """Training options that may differ between the models of one dataset."""
    remarks = [f"lr {run['lr']:g}"]
    # Older files, in which options could not differ, do not contain them.
    if "eps" in run:
        remarks.append(f"eps {run['eps']:g}")
        remarks += [f"{name} {value}" for name, value in run["model_options"].items()]
    return ", ".join(remarks)


def _sharing(settings: dict[str, Any]) -> str:
    """How many trainings share a device."""
    count = settings["at_once"]
    places = f"at once on each of {len(settings['devices'])}"
    # Older files, in which trainings could not be grouped, do not say so.
    if not settings.get("together", False):
        return f"{count} {places}"
    models = len(settings["models"])
    groups = "a seed of a dataset" if count == 1 else f"{count} seeds of datasets"
    return f"{models * count} {places}: all models of {groups}"


def load(path: Path) -> dict[str, Any] | None:
    """The facts of `python -m benchmarks accuracy`; None if the file belongs to another verb."""
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts if "runs" in facts else None


def markdown(facts: dict[str, Any]) -> str:
    where, settings = facts["environment"], facts["settings"]
    lines = [
        f"{where['device']}, torch {where['torch']}; commit {where['commit']}, {where['date']}."
        f" {settings['minutes']:g} minutes each, {_sharing(settings)}; fold 0, from scratch unless"
        " said, the last weights; mean over cases and 95 % bootstrap interval, then the means of"
        " further seeds."
    ]
    if facts.get("not_warmed_up"):
        cold = ", ".join(facts["not_warmed_up"])
        lines += ["", f"With kernels still to compile when their time began: {cold}."]
    for dataset in settings["datasets"]:
        own = [r for r in facts["runs"] if r["dataset"] == dataset]
        scored = [r for r in own if "scores" in r]
        metrics = [m for m in _METRICS if any(case_values(r["scores"], m) for r in scored)]
        rows = []
        for model in unique(r["model"] for r in own):
            runs = scored_runs(facts, dataset, model)
            if not runs:
                reason = next(r["reason"] for r in own if r["model"] == model)
                rows.append([model, "-", reason, *["-"] * len(metrics)])
                continue
            steps = "; ".join(str(r["iterations"]) for r in runs)
            rows.append([model, _options(runs[0]), steps, *(_shown(runs, m) for m in metrics)])
        lines += ["", f"### {dataset}", ""]
        lines.append(table(["model", "options", "steps", *(_METRICS[m] for m in metrics)], rows))
        for baseline, models in _compared(facts, dataset).items():
            rows = _differences(facts, dataset, baseline, models, metrics)
            if rows:
                lines += ["", f"Against `{baseline}`, case by case, the mean of the seeds:", ""]
                lines.append(table(["model", "seeds", *(_METRICS[m] for m in metrics)], rows))
    if "note" in facts:
        lines += ["", facts["note"]]
    return "\n".join(lines) + "\n"


def _compared(facts: dict[str, Any], dataset: str) -> dict[str, list[str]]:
    """Models by the one they are compared with: all with nnU-Net's, unless pairs are named."""
    scored = unique(r["model"] for r in facts["runs"] if r["dataset"] == dataset and "scores" in r)
    pairs = facts["settings"].get("pairs") or [[m, BASELINE] for m in scored if m != BASELINE]
    found: dict[str, list[str]] = {}
    for model, baseline in pairs:
        if model in scored:
            found.setdefault(baseline, []).append(model)
    return found


def _differences(
    facts: dict[str, Any], dataset: str, baseline: str, models: Sequence[str], metrics: list[str]
) -> list[list[str]]:
    theirs = {r["seed"]: r for r in scored_runs(facts, dataset, baseline)}
    rows = []
    for model in models:
        ours = {r["seed"]: r for r in scored_runs(facts, dataset, model)}
        common = sorted(ours.keys() & theirs.keys())
        # First what one seed shows, then all seeds that both models have.
        for number in sorted({min(1, len(common)), len(common)} - {0}):
            seeds = common[:number]
            first, second = ([runs[seed] for seed in seeds] for runs in (ours, theirs))
            remarks = ", ".join(map(str, seeds))
            rows.append([model, remarks, *(difference(first, second, m) for m in metrics)])
    return rows


def plot(facts: dict[str, Any], path: Path) -> None:
    """Validation DSC over training time, a panel for each dataset."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    datasets = facts["settings"]["datasets"]
    figure, axes = pyplot.subplots(
        1, len(datasets), figsize=(5 * len(datasets), 4), squeeze=False, layout="constrained"
    )
    models = unique(r["model"] for r in facts["runs"])
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for i, model in enumerate(models):
            for r in scored_runs(facts, dataset, model):
                label = model if r["seed"] == 0 else None
                minutes, dsc = [s / 60 for s, _ in r["curve"]], [d for _, d in r["curve"]]
                axis.plot(minutes, dsc, color=f"C{i}", alpha=1 if label else 0.4, label=label)
        axis.set(title=dataset, xlabel="minutes", ylabel="validation DSC", ylim=(0, 1))
    lines = {
        str(line.get_label()): line
        for axis in axes[0]
        for line in axis.get_legend_handles_labels()[0]
    }
    figure.legend(
        lines.values(), lines.keys(), fontsize="small", loc="outside lower center", ncols=2
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
