"""The verb `ops`: check every competitor, then time the correct ones, case by case."""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import cases, environment, timing
from benchmarks.measuring.cases import DTYPES, Case
from benchmarks.measuring.results import FAILED, NOT_RUN, OK, WRONG, Results, Row
from benchmarks.ops import floors, gate
from benchmarks.ops.competitors import Competitor, Step

MODES = {
    "ss2d": ("forward", "forward_backward"),
    "ss2d_scan": ("forward", "backward"),
    "selective_scan": ("forward", "forward_backward"),
}


def default_dtypes(op: str, device: torch.device) -> tuple[str, ...]:
    """Common dtypes: 16-bit for ss2d on a GPU, where 1-D scans also run in float32."""
    if device.type != "cuda":
        return ("float32",)
    return ("float32", "bfloat16") if op == "selective_scan" else ("float16", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """What to measure and for how long; see the help of `python -m benchmarks ops`."""

    device: torch.device
    cases: Sequence[Case]
    ops: Sequence[str]
    modes: Sequence[str]
    dtypes: Mapping[str, Sequence[str]]  # by op
    rounds: int = 3
    cell_seconds: float = 0.15
    budget_seconds: float | None = None
    graph: bool = False
    tiny: bool = False


class Runner:
    """The state of a run: gates, verdicts, results, and the time left."""

    def __init__(
        self,
        settings: Settings,
        competitors: Sequence[Competitor],
        tree: str | None,
        out: Path | None,
    ) -> None:
        self.settings, self.out = settings, out
        self.competitors = [c for c in competitors if c.missing is None]
        self.started = time.perf_counter()
        self.gates: dict[tuple[str, str, int], gate.Gate] = {}
        self.verdicts: dict[tuple[str, str, str, int], tuple[str, str] | None] = {}
        timing.warm_up(settings.device, 0.05 if settings.tiny else 0.5)
        self.ceilings = floors.measure_ceilings(settings.device, tiny=settings.tiny)
        self.results = Results(
            {
                **environment.describe(settings.device, tree),
                "peers": {c.name: c.source for c in self.competitors if not c.ours},
            },
            self.ceilings.as_dict(),
            {c.name: c.missing for c in competitors if c.missing is not None},
            {
                "rounds": settings.rounds,
                "cell_seconds": settings.cell_seconds,
                "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
                "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            },
        )

    def run(self) -> Results:
        cells = [
            (op, case, dtype)
            for op in self.settings.ops
            for dtype in self.settings.dtypes[op]
            for case in self.settings.cases
            if any(op in c.prepare for c in self.competitors)
        ]
        for i, (op, case, dtype) in enumerate(cells):
            self._cell(op, case, dtype, cells_left=len(cells) - i)
            if self.out is not None:
                self.results.save(self.out)
        self.results.settings["seconds"] = round(time.perf_counter() - self.started, 1)
        if self.out is not None:
            self.results.save(self.out)
        return self.results

    def _seconds(self, cells_left: int, timings: int) -> float:
        """Seconds for one timing; the remaining budget is divided among the remaining cells."""
        if self.settings.budget_seconds is None:
            return self.settings.cell_seconds
        left = self.settings.budget_seconds - (time.perf_counter() - self.started)
        # Setup, gates and warm-up take about as long as the timings themselves.
        return min(self.settings.cell_seconds, 0.5 * left / cells_left / max(timings, 1))

    def _cell(self, op: str, case: Case, dtype: str, cells_left: int) -> None:
        """All competitors, in all modes, on one op, case and dtype."""
        modes = [mode for mode in MODES[op] if mode in self.settings.modes]
        entered = [c for c in self.competitors if op in c.prepare]
        seconds = self._seconds(cells_left, len(modes) * len(entered))
        if seconds <= 0:
            reason = "the time budget was spent"
            self._add(op, modes, case, dtype, entered, NOT_RUN, reason)
            return
        sets = self._input_sets(op, case, dtype)
        parameters = cases.ss2d_parameters(case, self.settings.device)
        spot = None
        if op == "ss2d":
            spot = gate.spot_truth(sets[0], parameters, DTYPES[dtype])
        right: dict[str, list[Step]] = {}
        for competitor in entered:
            verdict = self._verdict(competitor, op, dtype, case.N)
            if verdict is None:
                outcome = self._prepared(competitor, op, sets, parameters, spot)
                if isinstance(outcome, list):
                    right[competitor.name] = outcome
                    continue
                verdict = outcome
            self._add(op, modes, case, dtype, [competitor], *verdict)
        timing.warm_up(self.settings.device, 0.01 if self.settings.tiny else 0.15)
        for mode in modes:
            self._time(op, mode, case, dtype, right, seconds)
        del sets, right
        gc.collect()
        if self.settings.device.type == "cuda":
            torch.cuda.empty_cache()

    def _input_sets(self, op: str, case: Case, dtype: str) -> list[dict[str, Tensor]]:
        device, make = self.settings.device, cases.MAKERS[op]
        first = make(case, DTYPES[dtype], device, 0)
        nbytes = sum(t.nbytes for t in first.values())
        count = 2 if self.settings.tiny else timing.input_sets(nbytes, device)
        return [first, *(make(case, DTYPES[dtype], device, i) for i in range(1, count))]

    def _verdict(
        self, competitor: Competitor, op: str, dtype: str, N: int
    ) -> tuple[str, str] | None:
        """None if the competitor's op is right at small size, otherwise status and reason."""
        op = "ss2d" if op == "ss2d_scan" else op  # the same kernels, preceded by the projections
        key = (competitor.name, op, dtype, N)
        if key not in self.verdicts:
            if key[1:] not in self.gates:
                base = gate.TINY_GATE_CASE if self.settings.tiny else gate.GATE_CASE
                case = Case(base.B, base.D, base.H, base.W, N, base.group)
                self.gates[key[1:]] = gate.Gate(op, DTYPES[dtype], self.settings.device, case)
            try:
                wrong = self.gates[key[1:]].why_wrong(competitor)
                self.verdicts[key] = None if wrong is None else (WRONG, wrong)
            except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
                self.verdicts[key] = (FAILED, error_line(error))
            verdict = self.verdicts[key]
            said = "right" if verdict is None else ": ".join(verdict)
            print(f"gate  {op} {dtype} N={N} {competitor.name}: {said}", file=sys.stderr)
        return self.verdicts[key]

    def _prepared(
        self,
        competitor: Competitor,
        op: str,
        sets: Sequence[dict[str, Tensor]],
        parameters: dict[str, Tensor],
        spot: tuple[Tensor, Tensor, float] | None,
    ) -> list[Step] | tuple[str, str]:
        """The competitor's steps on every input set, run once; otherwise status and reason."""
        try:
            steps = [competitor.prepare[op](one, parameters) for one in sets]
            if spot is not None:
                wrong = gate.why_wrong_at_size(steps[0], spot)
                if wrong is not None:
                    return WRONG, wrong
            for mode in MODES[op]:
                if mode in self.settings.modes:
                    called(steps[0], mode)
            timing.synchronize(self.settings.device)
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
            return FAILED, error_line(error)
        return steps

    def _time(
        self,
        op: str,
        mode: str,
        case: Case,
        dtype: str,
        right: dict[str, list[Step]],
        seconds: float,
    ) -> None:
        device = self.settings.device
        ours = {c.name: c.ours for c in self.competitors}
        calls = {
            name: [functools.partial(called, step, mode) for step in steps]
            for name, steps in right.items()
        }
        times = timing.interleaved(calls, device, seconds=seconds, rounds=self.settings.rounds)
        floor = floors.floor_ms(op, mode, case, DTYPES[dtype].itemsize, self.ceilings)
        for name in right:
            row = Row(op, mode, case, dtype, name, ours[name], OK)
            row.times, row.floor_ms = times[name], floor
            row.extra_bytes = extra_memory(right[name][0], mode, device)
            if self.settings.graph and device.type == "cuda":
                try:
                    replays = timing.graphed(calls[name][:4], device)
                except RuntimeError as error:
                    row.reason = f"no graph: {error_line(error)}"
                else:
                    graph_times = timing.interleaved(
                        {name: replays}, device, seconds=seconds, rounds=1
                    )
                    row.graph_ms = graph_times[name].median
            self._report(row)

    def _add(
        self,
        op: str,
        modes: Sequence[str],
        case: Case,
        dtype: str,
        competitors: Sequence[Competitor],
        status: str,
        reason: str,
    ) -> None:
        for competitor in competitors:
            for mode in modes:
                self._report(
                    Row(op, mode, case, dtype, competitor.name, competitor.ours, status, reason)
                )

    def _report(self, row: Row) -> None:
        self.results.rows.append(row)
        what = f"{row.op:14} {row.mode:16} {row.case.label:18} {row.dtype:8} {row.competitor:9}"
        if row.times is None:
            print(f"{what} {row.status}: {row.reason}", file=sys.stderr)
            return
        spread = f"[{row.times.p20:.3f}, {row.times.p80:.3f}] x{row.times.count}"
        memory = "" if row.extra_bytes is None else f"  {row.extra_bytes / 1e6:.0f} MB"
        graph = "" if row.graph_ms is None else f"  graph {row.graph_ms:.3f}"
        print(
            f"{what} {row.times.median:9.3f} ms {spread}{memory}{graph}  "
            f"{100 * (row.floor_share or 0):.0f} % of floor",
            file=sys.stderr,
        )


def error_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"


def called(step: Step, mode: str) -> object:
    """What a step returns in one of MODES."""
    if mode == "forward":
        return step.forward()
    if mode == "backward" and step.backward is not None:
        return step.backward()
    return step.forward_backward()


def result_bytes(result: object) -> int:
    """Size of all tensors returned by a step."""
    if isinstance(result, Tensor):
        return result.nbytes
    if isinstance(result, dict):
        return sum(result_bytes(value) for value in result.values())
    return sum(result_bytes(value) for value in result) if isinstance(result, (tuple, list)) else 0


def extra_memory(step: Step, mode: str, device: torch.device) -> int | None:
    """Peak memory of a call beyond its inputs, output and gradients, in bytes; GPU only."""
    if device.type != "cuda":
        return None
    called(step, mode)  # cuBLAS allocates its workspace again after each graph capture
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = called(step, mode)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before - result_bytes(result)


def run(
    settings: Settings,
    competitors: Sequence[Competitor],
    *,
    tree: str | None = None,
    out: Path | None = None,
) -> Results:
    """Measure everything in the settings; saved to `out` after every case, if given."""
    # Both off, so that float32 means float32 for everyone.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return Runner(settings, competitors, tree, out).run()
