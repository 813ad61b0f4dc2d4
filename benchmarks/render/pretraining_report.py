"""Tables of `python -m benchmarks pretraining`: pretrainings, scores, and time to reach scores."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.measuring.tables import table, unique
from benchmarks.render import accuracy_report
from benchmarks.render.accuracy_report import BASELINE, scored_runs

LEVELS = (0.8, 0.9, 1.0)
"""Fractions of the baseline's best DSC in validation."""


def markdown(facts: dict[str, Any]) -> str:
    lines = ["### Pretraining", "", _pretrainings(facts["pretraining"]), ""]
    lines += [accuracy_report.markdown(facts).rstrip()]
    for dataset in facts["settings"]["datasets"]:
        found = _speeds(facts, dataset)
        if found is not None:
            lines += ["", f"### Time to a DSC in validation: {dataset}", "", found]
        half_windows = _half_windows(facts, dataset)
        if half_windows is not None:
            lines += [
                "",
                f"### Windows of half the side, against whole ones: {dataset}",
                "",
                half_windows,
            ]
    return "\n".join(lines) + "\n"


def time_to(run: dict[str, Any], dsc: float) -> tuple[float, int] | None:
    """Minutes and steps after which a run first reached a DSC in validation; None if never."""
    pairs = zip(run["curve"], run["curve_iterations"], strict=True)
    return next(((s / 60, at) for (s, found), at in pairs if found >= dsc), None)


def _pretrainings(facts: dict[str, Any]) -> str:
    rows = []
    for run in facts["runs"]:
        accuracies = [a for _, a, _ in run["curve"] if a is not None]
        losses = [loss for _, _, loss in run["curve"]]
        height, width = run["image_size"]
        rows.append(
            [
                run["name"],
                f"{run['task']}, {height}x{width}",
                str(run["iterations"]),
                f"{run['seconds'] / 60:.1f}",
                f"{run['images_per_second']:,.0f}",
                f"{run['waited']:.1%}",
                f"{accuracies[-1]:.1%}" if accuracies else "-",
                f"{losses[-1]:.3f}" if losses else "-",
            ]
        )
    heads = ["encoder", "task", "steps", "minutes", "images/s", "waiting", "accuracy", "loss"]
    return f"On {facts['images']}, accuracy and loss on images held out.\n\n{table(heads, rows)}"


def _speeds(facts: dict[str, Any], dataset: str) -> str | None:
    """Minutes and steps to a DSC; None where models were validated only once, at the end."""
    if all(len(r.get("curve", ())) < 2 for r in facts["runs"] if r["dataset"] == dataset):
        return None
    peaks = [max(d for _, d in r["curve"]) for r in scored_runs(facts, dataset, BASELINE)]
    if not peaks:
        return None
    goals = [level * statistics.median(peaks) for level in LEVELS]
    rows = []
    for model in unique(r["model"] for r in facts["runs"] if r["dataset"] == dataset):
        runs = scored_runs(facts, dataset, model)
        if runs:
            rows.append([model, *(_reached(runs, goal) for goal in goals), _memory(runs)])
    return table(["model", *(f"{goal:.3f}" for goal in goals), "memory, GB"], rows)


def _half_windows(facts: dict[str, Any], dataset: str) -> str | None:
    """The effect of windows of half the side, case by case, averaged over seeds."""
    rows = []
    for model in unique(r["model"] for r in facts["runs"] if r["dataset"] == dataset):
        runs = [r for r in scored_runs(facts, dataset, model) if "half_window_scores" in r]
        if runs:
            half_windows = [{"scores": run["half_window_scores"]} for run in runs]
            rows.append([model, accuracy_report.difference(half_windows, runs, "dsc")])
    return table(["model", "DSC"], rows) if rows else None


def _reached(runs: list[dict[str, Any]], goal: float) -> str:
    found = [reached for run in runs if (reached := time_to(run, goal)) is not None]
    if not found:
        return f"- (0 of {len(runs)} seeds)"
    minutes, steps = (statistics.median(column) for column in zip(*found, strict=True))
    seeds = "" if len(found) == len(runs) else f", {len(found)} of {len(runs)} seeds"
    return f"{minutes:.1f} min, {steps:.0f} steps{seeds}"


def _memory(runs: list[dict[str, Any]]) -> str:
    found = [run["memory_mb"] for run in runs if run.get("memory_mb") is not None]
    return f"{max(found) / 1000:.1f}" if found else "-"
