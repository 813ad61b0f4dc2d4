"""Search ss2d for cliffs: time per element, forward and backward, along one size at a time.

Channels, ranks and states vary around 30x192x40x40 with R = 6, at 1 and at 16 states, with the
number of positions chosen for about the same number of elements. An element is one channel of one
position of one image; its cost should not differ much between neighbors in a sweep, except that
more states may cost in proportion, and "auto" should not choose a backend that another beats.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.measuring import cases, timing
from benchmarks.measuring.cases import DTYPES, Case
from benchmarks.ops.competitors import Competitor, ours
from benchmarks.ops.run import error_line

CHANNELS = (24, 48, 96, 192, 384, 768, 1536)
RANKS = (1, 2, 3, 5, 6, 7, 12, 13, 24, 25, 47, 48)
STATES = (1, 2, 3, 4, 8, 12, 16, 32)
MOST_STEP = 1.5  # maximum ratio between neighbors, of the same number of states
MOST_BEATEN = 1.2  # maximum ratio by which "auto" may be beaten
_ELEMENTS = 30 * 192 * 40 * 40
_TINY = 2 * 24 * 8 * 8


@dataclass(frozen=True)
class Point:
    """One measurement: nanoseconds per element of forward and backward, or why there is none."""

    axis: str
    case: Case
    dtype: str
    backend: str
    nanoseconds: float | None
    reason: str = ""


def axes(tiny: bool) -> dict[str, list[Case]]:
    """Cases by the varying size and the number of states, in order."""

    def case(D: int, R: int, N: int) -> Case:
        side = max(1, round((_TINY if tiny else _ELEMENTS) / (2 if tiny else 30) / D) ** 0.5)
        return Case(2 if tiny else 30, D, round(side), round(side), N, "sweep", R)

    channels, ranks, states = ((v[:2] if tiny else v) for v in (CHANNELS, RANKS, STATES))
    swept = {}
    for N in (1, 16):
        swept[f"D, N={N}"] = [case(D, -(-D // 32), N) for D in channels]
        swept[f"R, N={N}"] = [case(24 if tiny else 192, R, N) for R in ranks]
    swept["N"] = [case(24 if tiny else 192, 6, N) for N in states]
    return swept


def run(
    device: torch.device,
    dtypes: Sequence[str],
    backends: Sequence[str] | None,
    *,
    repeats: int = 10,
    tiny: bool = False,
    jobs: int = 0,
    seconds: float | None = None,
) -> list[Point]:
    """Every case with every usable backend, or with the named ones.

    jobs: processes that run every case once before, so that what is compiled at run time is in its
    cache. seconds: from when on cases are left out.
    """
    end = time.monotonic() + (float("inf") if seconds is None else seconds)
    usable = _usable(device, backends)
    swept = axes(tiny)
    cases_of = {case: None for line in swept.values() for case in line}  # in several axes once
    if jobs > 0:
        _compile(device, dtypes, [c.name for c in usable], list(cases_of), jobs, end)
    timing.warm_up(device, 0.05 if tiny else 0.5)
    found: dict[tuple[Case, str, str], tuple[float | None, str]] = {}
    for case in cases_of:
        parameters = cases.ss2d_parameters(case, device)
        for dtype in dtypes:
            activations = cases.ss2d_activations(case, DTYPES[dtype], device, 0)
            for competitor in usable:
                key = case, dtype, competitor.name
                if time.monotonic() > end:
                    found[key] = None, "not measured: the time was up"
                    continue
                try:
                    step = competitor.prepare["ss2d"](activations, parameters)
                    calls: list[timing.Call] = [step.forward_backward]
                    if device.type == "cuda":
                        calls = timing.graphed(calls, device)
                    calls[0]()
                    times = timing.Times.of(timing.measure(calls, repeats, device))
                    found[key] = times.median * 1e6 / (case.B * case.D * case.L), ""
                except RuntimeError as error:
                    found[key] = None, error_line(error)
                print(_line(Point("", *key, *found[key])), file=sys.stderr)
    return [
        Point(axis, case, dtype, c.name, *found[case, dtype, c.name])
        for axis, line in swept.items()
        for case in line
        for dtype in dtypes
        for c in usable
    ]


def _usable(device: torch.device, backends: Sequence[str] | None) -> list[Competitor]:
    """Our backends that run here: the named ones, or those that may be the fastest."""
    usable = [c for c in ours(device) if c.missing is None]
    if backends is not None:
        unknown = set(backends) - {c.name for c in usable}
        if unknown:
            known = ", ".join(c.name for c in usable)
            raise ValueError(f"--competitors has {', '.join(sorted(unknown))}, expected of {known}")
        return [c for c in usable if c.name in backends]
    if device.type == "cuda":
        return [c for c in usable if c.name != "pytorch"]  # not a competitor there, and slow
    return usable


def _compile(
    device: torch.device,
    dtypes: Sequence[str],
    backends: Sequence[str],
    swept: Sequence[Case],
    jobs: int,
    end: float,
) -> None:
    """Run every case once in other processes, with backends that compile at run time."""
    names = [name for name in backends if name == "triton"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        tasks = [
            pool.submit(_run_once, str(device), dtype, name, case)
            for case in swept
            for dtype in dtypes
            for name in names
        ]
        wait(tasks, max(0.0, end - time.monotonic()))
        pool.shutdown(cancel_futures=True)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


def _run_once(device: str, dtype: str, backend: str, case: Case) -> None:
    place = torch.device(device)
    (competitor,) = _usable(place, [backend])
    parameters = cases.ss2d_parameters(case, place)
    activations = cases.ss2d_activations(case, DTYPES[dtype], place, 0)
    try:
        competitor.prepare["ss2d"](activations, parameters).forward_backward()
    except RuntimeError as error:  # the measurement reports it
        print(f"{case.label}: {error_line(error)}", file=sys.stderr)


def _line(point: Point) -> str:
    case = f"{point.case.label} R={point.case.R}"
    cost = point.reason if point.nanoseconds is None else f"{point.nanoseconds:.4f} ns per element"
    return f"{case:44} {point.dtype:9} {point.backend:9} {cost}"


def fastest(points: Sequence[Point]) -> dict[tuple[str, Case, str], Point]:
    """The backend that "auto" chooses, the first one measured, by axis, case and dtype."""
    found: dict[tuple[str, Case, str], Point] = {}
    for point in points:
        if point.nanoseconds is not None:
            found.setdefault((point.axis, point.case, point.dtype), point)
    return found


def cliffs(points: Sequence[Point]) -> list[str]:
    """Problems: neighbors that differ by more than MOST_STEP and their states' ratio explain, and
    choices beaten by more than MOST_BEATEN."""
    chosen = fastest(points)
    said = []
    for dtype in dict.fromkeys(point.dtype for point in points):
        for axis in dict.fromkeys(point.axis for point in points):
            line = [p for (a, _, d), p in chosen.items() if (a, d) == (axis, dtype)]
            for before, after in pairwise(line):
                less, more = before.nanoseconds or 0, after.nanoseconds or 0
                states = after.case.N / before.case.N  # from few to many along every axis
                if more > MOST_STEP * states * less or less > MOST_STEP * more:
                    said.append(
                        f"{axis}, {dtype}: {before.case.label} and {after.case.label} "
                        f"differ by {max(less, more) / min(less, more):.2f}"
                    )
    for point in points:
        auto = chosen.get((point.axis, point.case, point.dtype))
        if auto is None or point.nanoseconds is None or auto.nanoseconds is None:
            continue
        if auto.nanoseconds > MOST_BEATEN * point.nanoseconds:
            ratio = auto.nanoseconds / point.nanoseconds
            said.append(
                f"{point.axis}, {point.dtype}: {point.case.label}: {point.backend} beats "
                f"{auto.backend} by {ratio:.2f}"
            )
    return said


def markdown(points: Sequence[Point], facts: dict[str, object]) -> str:
    """One table per axis, with backends side by side, and the problems."""
    backends = list(dict.fromkeys(point.backend for point in points))
    by_cell = {(p.axis, p.case, p.dtype, p.backend): p for p in points}
    lines = [f"{facts['device']}, torch {facts['torch']}, commit {facts['commit']}: ns per element"]
    for axis in dict.fromkeys(point.axis for point in points):
        lines += [
            "",
            f"| {axis} | dtype | {' | '.join(backends)} |",
            "|---" * (2 + len(backends)) + "|",
        ]
        for case, dtype in dict.fromkeys((p.case, p.dtype) for p in points if p.axis == axis):
            cells = []
            for backend in backends:
                point = by_cell[axis, case, dtype, backend]
                cells.append("-" if point.nanoseconds is None else f"{point.nanoseconds:.3f}")
            label = f"{case.B}x{case.D}x{case.H}x{case.W}, R={case.R}, N={case.N}"
            lines.append(f"| {label} | {dtype} | {' | '.join(cells)} |")
    said = cliffs(points)
    lines += ["", *(f"- {line}" for line in said)] if said else ["", "No cliffs."]
    return "\n".join(lines)


def save(points: Sequence[Point], facts: dict[str, object], out: Path) -> None:
    """The points as JSON at `out`, and their tables beside it."""
    rows = [{**asdict(point), "R": point.case.R} for point in points]
    out.write_text(json.dumps({"environment": facts, "points": rows}, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(points, facts) + "\n")


def load(path: Path) -> tuple[list[Point], dict[str, object]] | None:
    """Read a file written by save(): the points and their environment. None for another file."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or "points" not in found:
        return None
    points = [
        Point(**{**{k: v for k, v in row.items() if k != "R"}, "case": Case(**row["case"])})
        for row in found["points"]
    ]
    return points, found["environment"]
