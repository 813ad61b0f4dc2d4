"""The CPU backend against torch.exp, over threads and over sizes of images, and in training.

goal      ss2d at 1 x 192 x 64x64, N = 16, beside torch.exp of 2 * B * K * D * L * N float32 values
          in cache on the same threads, in turns within one process. At most 3 times that forward,
          6 times forward and backward: the exit status is 1 otherwise.
threads   the kernels alone on 1, 2, 4, ... threads, many channels and few.
sizes     ss2d at the first stage of images of 32 ... 1024 pixels: time and peak memory.
training  the demo's model: forward, loss and backward of one batch, by backend.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import swin_umamba
from benchmarks.measuring import cases, environment, host_memory, timing
from benchmarks.measuring.cases import Case, ModelCase
from benchmarks.measuring.results import OK, WRONG, Results, Row
from benchmarks.models import competitors as models
from benchmarks.models.gate import batch
from benchmarks.ops import competitors, floors, gate
from benchmarks.ops.run import called, result_bytes

GOAL = Case(1, 192, 64, 64, group="goal")
AT_MOST = {"forward": 3.0, "forward_backward": 6.0}
EXP = "torch.exp"
DEVICE = torch.device("cpu")
THREAD_CASES = tuple(
    Case(B, D, H, W, group="threads")
    for B, D, H, W in ((1, 192, 64, 64), (1, 16, 128, 128), (1, 48, 96, 96), (2, 768, 16, 16))
)
TINY = Case(1, 16, 5, 7, 4)


@dataclass(frozen=True)
class Settings:
    """Which parts, and how long; see the help of `python -m benchmarks cpu`."""

    parts: Sequence[str]
    rounds: int = 15
    cell_seconds: float = 1.0
    tiny: bool = False


class _Runner:
    def __init__(self, settings: Settings, tree: str | None, out: Path | None) -> None:
        self.settings, self.out = settings, out
        self.cpu = next(c for c in competitors.ours(DEVICE) if c.name == "cpu")
        if self.cpu.missing is not None:
            raise ValueError(f"the cpu backend is not usable here: {self.cpu.missing}")
        timing.warm_up(DEVICE, 0.05 if settings.tiny else 0.5)
        ceilings = floors.measure_ceilings(DEVICE, tiny=settings.tiny)
        facts = {**environment.describe(DEVICE, tree), "load": os.getloadavg()}
        self.results = Results(
            facts,
            ceilings.as_dict(),
            {},
            {"rounds": settings.rounds, "parts": list(settings.parts)},
        )

    def run(self) -> Results:
        wrong = self._why_wrong()
        if wrong is not None:
            self._add(Row("ss2d", "forward_backward", GOAL, "float32", "cpu", True, WRONG, wrong))
            return self.results
        for part in self.settings.parts:
            PARTS[part](self)
            if self.out is not None:
                self.results.save(self.out)
        return self.results

    def _why_wrong(self) -> str | None:
        base = gate.TINY_GATE_CASE if self.settings.tiny else gate.GATE_CASE
        return gate.Gate("ss2d", torch.float32, DEVICE, base).why_wrong(self.cpu)

    def _times(
        self, calls: dict[str, list[timing.Call]], rounds: int | None = None
    ) -> dict[str, timing.Times]:
        seconds = 0.005 if self.settings.tiny else self.settings.cell_seconds
        rounds = 1 if self.settings.tiny else rounds or self.settings.rounds
        return timing.interleaved(calls, DEVICE, seconds=seconds, rounds=rounds, most=200)

    def _step(self, op: str, case: Case) -> competitors.Step:
        activations = cases.MAKERS[op](case, torch.float32, DEVICE, 0)
        return self.cpu.prepare[op](activations, cases.ss2d_parameters(case, DEVICE))

    def _add(self, row: Row) -> None:
        self.results.rows.append(row)
        time = f"{row.status}: {row.reason}"
        if row.times is not None:
            time = f"{row.times.median:10.3f} ms [{row.times.p20:.3f}, {row.times.p80:.3f}]"
        memory = "" if row.extra_bytes is None else f"  {row.extra_bytes / 1e6:.0f} MB"
        print(
            f"{row.op:13} {row.mode:16} {row.case.label:16} {row.competitor:16} {time}{memory}",
            file=sys.stderr,
            flush=True,
        )

    def goal(self) -> None:
        case = TINY if self.settings.tiny else GOAL
        step = self._step("ss2d", case)
        exp = exponentials(2 * cases.exponentials(case))
        modes: dict[str, list[timing.Call]] = {
            mode: [functools.partial(called, step, mode)] for mode in AT_MOST
        }
        times = self._times({EXP: [exp], **modes})
        ratios = {}
        for mode, at_most in AT_MOST.items():
            ratios[mode] = round(times[mode].median / times[EXP].median, 3)
            self._add(Row("ss2d", mode, case, "float32", "cpu", True, OK, times=times[mode]))
            self._add(Row("ss2d", mode, case, "float32", EXP, False, OK, times=times[EXP]))
            print(f"{mode}: {ratios[mode]} times {EXP}, goal {at_most}", file=sys.stderr)
        self.results.settings |= {"ratios_to_exp": ratios, "goals": AT_MOST}

    def threads(self) -> None:
        for case in (TINY,) if self.settings.tiny else THREAD_CASES:
            step = self._step("ss2d_scan", case)
            for mode in ("forward", "backward"):
                counts = thread_counts()
                calls: dict[str, list[timing.Call]] = {
                    _on(n): [_with_threads(n, functools.partial(called, step, mode))]
                    for n in counts
                }
                for name, times in self._times(calls).items():
                    self._add(Row("ss2d_scan", mode, case, "float32", name, True, OK, times=times))

    def sizes(self) -> None:
        sizes = [case for case in cases.GROUPS["sizes"] if case.H <= 256]
        for case in [TINY] if self.settings.tiny else sizes:
            step = self._step("ss2d", case)
            for mode in AT_MOST:
                call = functools.partial(called, step, mode)
                times = self._times({"cpu": [call]}, rounds=3)["cpu"]
                row = Row("ss2d", mode, case, "float32", "cpu", True, OK, times=times)
                if host_memory.why_unknown() is None:
                    peak, result = host_memory.peak_bytes(call)
                    row.extra_bytes = max(0, peak - result_bytes(result))
                    del result
                self._add(row)

    def training(self) -> None:
        from swin_umamba.demo import run as demo  # which brings matplotlib

        side = 32 if self.settings.tiny else demo.PATCH
        case = ModelCase(2, side, side, "demo")
        calls: dict[str, list[timing.Call]] = {}
        for backend in ("cpu", "pytorch"):
            torch.manual_seed(0)
            model = swin_umamba.create_model(
                "swin_umamba_d",
                in_channels=1,
                out_channels=demo.CLASSES,
                deep_supervision=True,
                **demo.MODEL_OPTIONS,
                backend=backend,
            )
            image, target = batch(case.B, side, side, DEVICE, 0)
            target = target.clamp(max=demo.CLASSES - 1)
            calls[backend] = [models.eager_training(model.train(), image, target, None)]
        for name, times in self._times(calls).items():
            self._add(
                Row("swin_umamba_d", "training", case, "float32", name, True, OK, times=times)
            )


PARTS: dict[str, Callable[[_Runner], None]] = {
    "goal": _Runner.goal,
    "threads": _Runner.threads,
    "sizes": _Runner.sizes,
    "training": _Runner.training,
}


def exponentials(count: int) -> timing.Call:
    """torch.exp of `count` float32 values, by pieces that stay in cache and occupy every thread."""
    # torch splits pieces of 2**15 among threads.
    values = torch.rand(min(count, torch.get_num_threads() << 15))
    result = torch.empty_like(values)

    def call() -> None:
        for _ in range(max(1, round(count / values.numel()))):
            torch.exp(values, out=result)

    return call


def thread_counts() -> list[int]:
    """1, 2, 4, ... up to what torch may use here."""
    most = torch.get_num_threads()
    return sorted({most, *(1 << i for i in range(most.bit_length()) if 1 << i <= most)})


def _on(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_threads(count: int, call: timing.Call) -> timing.Call:
    def limited() -> object:
        with _threads(count):
            return call()

    return limited


def missed_goals(found: Results) -> list[str]:
    """The modes whose time is more than their goal allows, of a run that measured them."""
    ratios = found.settings.get("ratios_to_exp", {})
    return [mode for mode, ratio in ratios.items() if ratio > AT_MOST[mode]]


def run(settings: Settings, *, tree: str | None = None, out: Path | None = None) -> Results:
    """Measure the parts; saved to `out` after each, if given. ValueError without the backend."""
    return _Runner(settings, tree, out).run()
