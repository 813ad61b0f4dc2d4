"""Training throughput on 1, 2, ... GPUs, or CPU processes, with a constant batch per process.

Measures steps of the actual training loop: loading, forward, loss over all processes, backward,
clipping, optimizer, as run by `torchrun --nproc-per-node N -m swin_umamba.cli train`, on random
images. Patches are cut by worker processes, without augmentation unless --augment is given, which
needs many CPU cores per GPU. Shapes are per process: with N processes the ideal is N times the
images per second of one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import environment
from benchmarks.measuring.cases import ModelCase
from benchmarks.measuring.results import FAILED, OK, Results, Row
from benchmarks.measuring.tables import table
from benchmarks.measuring.timing import Times
from benchmarks.training import scale_prediction

SCALING = "scaling"  # key of the results' settings
TINY_CASE = ModelCase(2, 32, 32, "tiny")
CASE = ModelCase(30, 320, 320)
_ROOT = Path(__file__).resolve().parents[2]
_LIMIT = 900  # seconds for one launch


@dataclass(frozen=True)
class Settings:
    """What to measure; see the help of `python -m benchmarks scale`.

    cell_seconds: for one model, case and number of processes, in each round.
    """

    device: str  # cuda or cpu
    processes: Sequence[int]
    models: Sequence[str]
    cases: Sequence[ModelCase]
    amp: str = "auto"
    augment: bool = False
    rounds: int = 2
    cell_seconds: float = 10.0
    budget_seconds: float | None = None
    tiny: bool = False


def _command(processes: int, request: Path) -> list[str]:
    """One process as started by a user, several by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    worker = ["-m", "benchmarks.training.scale_worker", str(request)]
    return [sys.executable, *(launcher if processes > 1 else []), *worker]


class _Runner:
    def __init__(self, settings: Settings, tree: str | None, out: Path | None) -> None:
        self.settings, self.out = settings, out
        found = torch.cuda.device_count() if settings.device == "cuda" else os.cpu_count() or 1
        if max(settings.processes) > found and settings.device == "cuda":
            raise ValueError(f"--processes has {max(settings.processes)}, here are {found} GPUs")
        # As many threads per process, however many there are.
        self.threads = max((os.cpu_count() or 1) // max(settings.processes), 1)
        self.started = time.perf_counter()
        self.measured: dict[tuple[str, ModelCase, int], list[dict[str, Any]]] = {}
        self.failed: dict[int, str] = {}
        facts = environment.describe(torch.device(settings.device), tree)
        facts |= {"threads": self.threads, "devices": found}
        self.results = Results(facts, {}, {}, asdict(settings))

    def run(self) -> Results:
        budget = self.settings.budget_seconds
        for number in range(self.settings.rounds):
            if number and budget is not None and time.perf_counter() - self.started > budget:
                break
            for processes in self.settings.processes:
                self._launch(processes)
                self._tell()
        return self.results

    def _launch(self, processes: int) -> None:
        if processes in self.failed:
            return
        with tempfile.TemporaryDirectory() as folder:
            request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
            request.write_text(json.dumps({**asdict(self.settings), "answer": str(answer)}))
            threads = {"OMP_NUM_THREADS": str(self.threads)}
            done = subprocess.run(
                _command(processes, request),
                cwd=_ROOT,
                env={**os.environ, **threads},
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
            if done.returncode != 0:
                print(done.stderr, file=sys.stderr)
                lines = [line for line in done.stderr.splitlines() if "Error" in line]
                self.failed[processes] = lines[0] if lines else f"status {done.returncode}"
                return
            for cell in json.loads(answer.read_text()):
                key = (cell["model"], ModelCase(**cell["case"]), processes)
                self.measured.setdefault(key, []).append(cell)
                rate = cell["images"] / sum(cell["seconds"])
                passed = time.perf_counter() - self.started
                label = f"{key[0]:14} {key[1].label:12} {_named(processes, self.settings.device)}"
                print(f"{passed:6.1f} s  {label} {rate:9.1f} images/s", file=sys.stderr, flush=True)

    def _tell(self) -> None:
        """Update the results, and write them if requested."""
        self.results.rows = [
            _row(key, cells, self.settings.device) for key, cells in self.measured.items()
        ]
        for processes, reason in self.failed.items():
            name = _named(processes, self.settings.device)
            self.results.rows += [
                Row(model, "training", case, "-", name, True, FAILED, reason)
                for model in self.settings.models
                for case in self.settings.cases
            ]
        self.results.settings[SCALING] = _scaling(self.measured)
        if self.out is not None:
            self.results.save(self.out)


def _named(processes: int, device: str) -> str:
    what = "GPU" if device == "cuda" else "process"
    plural = {"GPU": "GPUs", "process": "processes"}[what]
    return f"{processes} {what if processes == 1 else plural}"


def _row(key: tuple[str, ModelCase, int], cells: Sequence[dict[str, Any]], device: str) -> Row:
    model, case, processes = key
    times = Times.of([1e3 * seconds for cell in cells for seconds in cell["seconds"]])
    row = Row(model, "training", case, cells[0]["dtype"], _named(processes, device), True, OK)
    row.times = times
    return row


def _scaling(
    measured: dict[tuple[str, ModelCase, int], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Images per second over all measured steps, and the ratio to the fewest processes."""
    found = []
    for (model, case, processes), cells in measured.items():
        seconds = sum(sum(cell["seconds"]) for cell in cells)
        found.append(
            {
                "model": model,
                "case": case.label,
                "processes": processes,
                "images_per_second": sum(cell["images"] for cell in cells) / seconds,
                "waited": sum(cell["waited"] for cell in cells) / seconds,
                "peak_bytes": max((cell["peak_bytes"] or 0 for cell in cells), default=0) or None,
                "gradient_bytes": cells[0].get("gradient_bytes"),
                "exchange_seconds": cells[0].get("exchange_seconds"),
            }
        )
    for entry in found:
        same = [e for e in found if (e["model"], e["case"]) == (entry["model"], entry["case"])]
        fewest = min(same, key=lambda e: e["processes"])
        entry["ratio"] = entry["images_per_second"] / fewest["images_per_second"]
    return found


def markdown(results: Results) -> str:
    """The table of images per second, from a results file that contains one."""
    lines = []
    for entry in results.settings[SCALING]:
        peak = entry["peak_bytes"]
        lines.append(
            [
                entry["model"],
                entry["case"],
                str(entry["processes"]),
                f"{entry['images_per_second']:.1f}",
                f"{entry['ratio']:.2f}x",
                f"{100 * entry['waited']:.1f} %",
                "-" if peak is None else f"{peak / 1e9:.1f} GB",
            ]
        )
    header = ["model", "B, HxW of each", "processes", "images/s", "ratio", "waiting", "peak of one"]
    measured = table(header, lines)
    predicted = scale_prediction.markdown(results.settings[SCALING])
    return f"{measured}\n\n{predicted}" if predicted else measured


def run(settings: Settings, *, tree: str | None = None, out: Path | None = None) -> Results:
    """Measure in rounds; saved to `out` after every launch. ValueError for missing GPUs."""
    return _Runner(settings, tree, out).run()
