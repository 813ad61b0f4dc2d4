"""The verb `model`: training step and inference of whole models, gated, then timed in turns."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measuring import environment, timing
from benchmarks.measuring.cases import DTYPES, ModelCase
from benchmarks.measuring.energy import joules_per_call
from benchmarks.measuring.results import FAILED, NOT_RUN, OK, WRONG, Results, Row
from benchmarks.models.competitors import (
    Call,
    ModelCompetitor,
    forms_of,
    supervise,
    weights,
)
from benchmarks.models.gate import SIZE, TINY_SIZE, ModelGate, batch
from benchmarks.ops.run import error_line

MODES = ("training", "inference")


@dataclass(frozen=True)
class Settings:
    """What to measure and for how long; see the help of `python -m benchmarks model`."""

    device: torch.device
    models: Sequence[str]
    cases: Sequence[ModelCase]
    modes: Sequence[str]
    dtypes: Sequence[str]
    rounds: int = 3
    cell_seconds: float = 1.0
    budget_seconds: float | None = None
    tiny: bool = False
    cudnn_benchmark: bool = False


class _Runner:
    """The state of a run: results, and the time left."""

    def __init__(
        self,
        settings: Settings,
        competitors: Sequence[ModelCompetitor],
        tree: str | None,
        out: Path | None,
    ) -> None:
        self.settings, self.competitors, self.out = settings, competitors, out
        self.started = time.perf_counter()
        timing.warm_up(settings.device, 0.05 if settings.tiny else 0.5)
        sources = {c.name: c.source for c in competitors if c.source is not None}
        self.results = Results(
            {**environment.describe(settings.device, tree), "peers": sources},
            {},
            {},
            {
                "rounds": settings.rounds,
                "cell_seconds": settings.cell_seconds,
                "cudnn_benchmark": torch.backends.cudnn.benchmark,
                "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
                "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            },
        )

    def run(self) -> Results:
        for model in self.settings.models:
            for dtype in self.settings.dtypes:
                self._model(model, dtype)
        self.results.settings["seconds"] = round(time.perf_counter() - self.started, 1)
        self._save()
        return self.results

    def _save(self) -> None:
        if self.out is not None:
            self.results.save(self.out)

    def _model(self, model: str, dtype: str) -> None:
        entered = []
        for competitor in forms_of(model, self.competitors):
            missing = competitor.why_missing(model)
            if missing is None:
                entered.append(competitor)
            else:
                self.results.missing[f"{competitor.name}, {model}"] = missing
        if not entered:
            return
        state = weights(model, self.settings.tiny)
        built, bad = self._gated(model, dtype, state, entered)
        for case in self.settings.cases:
            for mode in self.settings.modes:
                for competitor in entered:
                    if competitor.name in bad:
                        verdict = bad[competitor.name]
                        self._add(model, mode, case, dtype, competitor, *verdict)
                right = [c for c in entered if c.name in built]
                self._cell(model, mode, case, dtype, right, built)
                self._save()
        built.clear()
        _free(self.settings.device)

    def _gated(
        self, model: str, dtype: str, state: dict[str, Tensor], entered: Sequence[ModelCompetitor]
    ) -> tuple[dict[str, nn.Module], dict[str, tuple[str, str]]]:
        """The correct models by competitor, and status and reason of the others."""
        device, tiny = self.settings.device, self.settings.tiny
        built: dict[str, nn.Module] = {}
        bad: dict[str, tuple[str, str]] = {}
        for competitor in entered:
            try:
                built[competitor.name] = competitor.build(model, tiny, state).to(device)
            except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
                bad[competitor.name] = (FAILED, error_line(error))
        release = built.get("release")
        size = TINY_SIZE if tiny else SIZE
        if release is not None:
            # The smallest shape to be timed, so that compiled models are compiled for it only once.
            case = min(self.settings.cases, key=lambda c: c.B * c.H * c.W)
            size = (case.B, case.H, case.W)
        gate = ModelGate(model, tiny, state, autocast_dtype(dtype), device, release, size)
        for competitor in entered:
            if competitor.name not in built:
                continue
            try:
                wrong = gate.why_wrong(competitor, built[competitor.name])
                if wrong is not None:
                    bad[competitor.name] = (WRONG, wrong)
            except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
                bad[competitor.name] = (FAILED, error_line(error))
            verdict = bad.get(competitor.name)
            said = "right" if verdict is None else ": ".join(verdict)
            self._log(f"gate  {model} {dtype} {competitor.name}: {said}")
            if verdict is not None:
                del built[competitor.name]
        _free(device)
        return built, bad

    def _cell(
        self,
        model: str,
        mode: str,
        case: ModelCase,
        dtype: str,
        right: Sequence[ModelCompetitor],
        built: dict[str, nn.Module],
    ) -> None:
        """All correct competitors on one model, mode, case and dtype."""
        device, budget = self.settings.device, self.settings.budget_seconds
        if budget is not None and time.perf_counter() - self.started > budget:
            for competitor in right:
                reason = "the time budget was spent"
                self._add(model, mode, case, dtype, competitor, NOT_RUN, reason)
            return
        calls: dict[str, list[Call]] = {}
        memory: dict[str, int | None] = {}
        for competitor in right:
            module = built[competitor.name]
            try:
                calls[competitor.name] = self._calls(competitor, module, mode, case, dtype)
                memory[competitor.name] = peak_memory(calls[competitor.name][0], module, device)
            except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
                self._add(model, mode, case, dtype, competitor, FAILED, error_line(error))
                calls.pop(competitor.name, None)
        times = timing.interleaved(
            calls, device, seconds=self.settings.cell_seconds, rounds=self.settings.rounds
        )
        ours = {c.name: c.ours for c in right}
        for name, measured in times.items():
            row = Row(model, mode, case, dtype, name, ours[name], OK, times=measured)
            # A graph owns its memory: a replay allocates nothing that could be counted.
            row.extra_bytes = None if "graph" in name else memory[name]
            row.joules = joules_per_call(calls[name], device)
            self._report(row)
        for name in calls:
            built[name].zero_grad(set_to_none=True)
        calls.clear()
        _free(device)

    def _calls(
        self, competitor: ModelCompetitor, module: nn.Module, mode: str, case: ModelCase, dtype: str
    ) -> list[Call]:
        """One call for each of two batches, whose tensors are far larger than a cache."""
        train = mode == "training"
        supervise(module.train(train), train)
        make = competitor.training if train else competitor.inference
        # A graph owns the memory of its whole step, so there is only one.
        count = 1 if "graph" in competitor.name else 2
        return [
            make(
                module,
                *batch(case.B, case.H, case.W, self.settings.device, seed),
                autocast_dtype(dtype),
            )
            for seed in range(count)
        ]

    def _add(
        self,
        model: str,
        mode: str,
        case: ModelCase,
        dtype: str,
        competitor: ModelCompetitor,
        status: str,
        reason: str,
    ) -> None:
        self._report(
            Row(model, mode, case, dtype, competitor.name, competitor.ours, status, reason)
        )

    def _report(self, row: Row) -> None:
        self.results.rows.append(row)
        what = f"{row.op:14} {row.mode:9} {row.case.label:12} {row.dtype:8} {row.competitor:14}"
        if row.times is None:
            self._log(f"{what} {row.status}: {row.reason}")
            return
        spread = f"[{row.times.p20:.2f}, {row.times.p80:.2f}] x{row.times.count}"
        size = "" if row.extra_bytes is None else f"  {row.extra_bytes / 1e6:.0f} MB"
        energy = "" if row.joules is None else f"  {row.joules:.1f} J"
        self._log(f"{what} {row.times.median:9.2f} ms {spread}{size}{energy}")

    def _log(self, text: str) -> None:
        print(f"{time.perf_counter() - self.started:6.1f} s  {text}", file=sys.stderr, flush=True)


def autocast_dtype(dtype: str) -> torch.dtype | None:
    """The dtype for autocast, None for float32."""
    return None if dtype == "float32" else DTYPES[dtype]


def peak_memory(call: Call, module: nn.Module, device: torch.device) -> int | None:
    """Peak memory of a call beyond weights and inputs, in bytes; GPU only. Runs it twice."""
    call()
    if device.type != "cuda":
        return None
    module.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def run(
    settings: Settings,
    competitors: Sequence[ModelCompetitor],
    *,
    tree: str | None = None,
    out: Path | None = None,
) -> Results:
    """Measure everything in the settings; saved to `out` after every cell, if given."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = settings.cudnn_benchmark
    torch._dynamo.config.recompile_limit = 64  # compile every shape separately
    return _Runner(settings, competitors, tree, out).run()
