"""Accuracy at equal time: models trained in the same loop on the same splits, as by a user.

Every model is trained from scratch on fold 0 of every dataset for the same number of minutes by
`swin-umamba train`, with the same options except those of --train-for; the last weights, not the
best-scoring ones, predict the validation cases, and `swin-umamba evaluate` scores them. --transfer
A:B:MODEL also trains on B with the encoder that was trained on A. Several trainings may share a GPU
(--at-once), each with its share of the GPU's time, so all places should be occupied until the end.
With --together the models of one dataset and seed share a device at the same time, and nothing else
trains there. On a GPU every model first takes one step on the first dataset outside of the measured
time, so that kernels compiled at first use do not count for one model. Each training leaves a run
in --work, with report and curves. Runs that are complete there, or whose scores are in --earlier,
are not repeated; with --together, only if all runs of their seed are complete.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import environment
from swin_umamba.runs.log import waiting_share

SCHEMA = 1
MODELS = ("swin_umamba", "swin_umamba_d", "dynunet")
DONE, HALF, ENCODER = "scores.json", "half_windows.json", "encoder.safetensors"
HALF_WINDOWS = "--half-windows"  # an option of the worker
_ROOT = Path(__file__).resolve().parents[2]
_STARTUP = 300  # seconds that a training may take beyond its minutes
_SAME = ("device", "torch", "commit")  # facts that all runs in one file share


@dataclass(frozen=True)
class Job:
    """One training: a model on a dataset with a seed, perhaps with an encoder from another."""

    dataset: Path
    model: str
    seed: int = 0
    encoder_from: Path | None = None

    @property
    def name(self) -> str:
        start = "" if self.encoder_from is None else f"-from-{self.encoder_from.name}"
        return f"{self.dataset.name}-{self.model}-{self.seed}{start}"

    @property
    def source(self) -> str | None:
        """The job whose encoder this one starts with."""
        if self.encoder_from is None:
            return None
        return Job(self.encoder_from, self.model, self.seed).name

    @property
    def label(self) -> str:
        """Of the model, in tables."""
        if self.encoder_from is None:
            return self.model
        return f"{self.model}, encoder from {self.encoder_from.name}"


@dataclass(frozen=True)
class Settings:
    """See the help of `python -m benchmarks accuracy`. seeds: how many, per dataset.

    at_once: trainings per device, or with `together` groups of them. start_until: seconds after
    which no training starts. options: of `swin-umamba train`, for all; options_of: further ones, by
    name of a dataset, a model, or both as DATASET:MODEL. A model's name may be arbitrary if its
    options contain --model. pairs: models of which the second is the comparison, case by case;
    nnU-Net's network by default. half_windows: score a second time with windows of half the side.
    """

    datasets: Sequence[Path]
    work: Path
    models: Sequence[str] = MODELS
    seeds: Sequence[int] = (1,)
    transfers: Sequence[tuple[Path, Path, str]] = ()
    minutes: float = 3.0
    devices: Sequence[str] = ("cpu",)
    at_once: int = 1
    together: bool = False
    start_until: float = math.inf
    options: Sequence[str] = ()
    options_of: dict[str, Sequence[str]] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    half_windows: bool = False


def jobs(settings: Settings) -> list[Job]:
    """All trainings in starting order: those that others wait for come first."""
    seeds = list(settings.seeds)
    if len(seeds) == 1:
        seeds *= len(settings.datasets)
    if len(seeds) != len(settings.datasets):
        raise ValueError(
            f"--seeds has {len(seeds)} numbers, expected one or {len(settings.datasets)},"
            " a dataset each"
        )
    found = [
        Job(dataset, model, seed)
        for seed in range(max(seeds))
        for dataset, count in zip(settings.datasets, seeds, strict=True)
        for model in settings.models
        if seed < count
    ]
    found += [Job(target, model, 0, source) for source, target, model in settings.transfers]
    missing = [job.source for job in found if job.source not in {None, *(j.name for j in found)}]
    if missing:
        raise ValueError(f"--transfer needs {missing[0]}, which is none of the trainings")
    return found


def groups(settings: Settings) -> list[list[Job]]:
    """The trainings that start at the same time on one device."""
    found = jobs(settings)
    if not settings.together:
        return [[job] for job in found]
    if settings.transfers:
        raise ValueError("--together has no place for --transfer, which waits for another training")
    count = len(settings.models)
    return [found[first : first + count] for first in range(0, len(found), count)]


def command(job: Job, settings: Settings, device: str) -> list[str]:
    """For the worker: the options of `swin-umamba train` that define the job, then the user's."""
    arguments = ["--model", job.model, "--seed", str(job.seed), "--minutes", str(settings.minutes)]
    arguments += ["--device", device, *settings.options]
    # The most specific option last: `swin-umamba train` uses the last value given.
    for name in (job.dataset.name, job.model, f"{job.dataset.name}:{job.model}"):
        arguments += settings.options_of.get(name, ())
    if job.source is not None:
        # The encoder's start is as good as its own weights would be: do not freeze it.
        encoder = settings.work / job.source / ENCODER
        arguments += ["--pretrained", str(encoder), "--set", "freeze_iterations=0"]
    run = settings.work / job.name
    worker = ["-m", "benchmarks.training.accuracy_worker", str(job.dataset), str(run)]
    if settings.half_windows:
        worker.append(HALF_WINDOWS)
    return [sys.executable, *worker, *arguments]


def alone(device: str, visible: str | None) -> tuple[str, dict[str, str]]:
    """Make one CUDA device the only visible one for a process: its name there, and the environment.

    visible: CUDA_VISIBLE_DEVICES here, if set.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device, {}
    names = visible.split(",") if visible else None
    number = int(index or 0)
    return "cuda:0", {"CUDA_VISIBLE_DEVICES": names[number] if names else str(number)}


def warm_up(settings: Settings, device: str) -> list[str]:
    """One step of every model, whose compiled kernels later processes find in their cache.

    As many at once as will train on the GPU. Returns the models that failed: their own trainings
    will report why, or compile in their own time.
    """
    device, sees = alone(device, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def fails(model: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            tried = replace(settings, work=Path(folder), half_windows=False)
            words = command(Job(settings.datasets[0], model), tried, device)
            worker = words.index("benchmarks.training.accuracy_worker")
            words[worker : worker + 1] = ["swin_umamba.cli", "train"]
            try:
                subprocess.run(
                    [*words, "--iterations", "1"],
                    cwd=_ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1", **sees},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_STARTUP,
                    check=True,
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                return True
        return False

    at_once = settings.at_once * len(groups(settings)[0])
    with ThreadPoolExecutor(at_once) as pool:
        failures = pool.map(fails, settings.models)
        return [model for model, failed in zip(settings.models, failures, strict=True) if failed]


class _Runner:
    """Slots on devices, each taking the next group whose dependencies are complete."""

    def __init__(
        self,
        settings: Settings,
        missing: list[list[Job]],
        started: float,
        on_done: Callable[[], None],
    ) -> None:
        self.settings, self.started, self.on_done = settings, started, on_done
        self.waiting = list(missing)
        self.reasons: dict[str, str] = {}
        self.changed = threading.Condition()
        self.running: set[str] = set()

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._work, args=(device,))
            for _ in range(self.settings.at_once)
            for device in self.settings.devices
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, device: str) -> None:
        while (group := self._next()) is not None:
            with ThreadPoolExecutor(len(group)) as pool:
                for finished in [pool.submit(self._finish, job, device) for job in group]:
                    finished.result()

    def _finish(self, job: Job, device: str) -> None:
        reason = self._train(job, device)
        with self.changed:
            self.running.discard(job.name)
            if reason is not None:
                self.reasons[job.name] = reason
            self.on_done()
            self.changed.notify_all()
        print(f"{self._took():6.1f} s  {job.name}: {reason or 'done'}", file=sys.stderr, flush=True)

    def _took(self) -> float:
        return time.perf_counter() - self.started

    def _next(self) -> list[Job] | None:
        """A group that can start; waits for one if necessary, None if there are no more."""
        with self.changed:
            while self.waiting and self._took() <= self.settings.start_until:
                pending = {job.name for group in self.waiting for job in group} | self.running
                for group in self.waiting:
                    if pending.isdisjoint({job.source for job in group}):
                        self.waiting.remove(group)
                        self.running |= {job.name for job in group}
                        return group
                self.changed.wait()
            return None

    def _train(self, job: Job, device: str) -> str | None:
        """Why there are no scores, or None."""
        run = self.settings.work / job.name
        if run.exists():  # interrupted, or to be repeated together with others
            shutil.rmtree(run)
        if job.source in self.reasons:
            return f"needs {job.source}"
        log = self.settings.work / f"{job.name}.txt"
        device, sees = alone(device, os.environ.get("CUDA_VISIBLE_DEVICES"))
        try:
            with log.open("w") as text:
                done = subprocess.run(
                    command(job, self.settings, device),
                    cwd=_ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1", **sees},
                    stdout=text,
                    stderr=subprocess.STDOUT,
                    timeout=60 * self.settings.minutes + _STARTUP,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return f"took {_STARTUP} seconds more than its time"
        lines = [line for line in log.read_text().splitlines() if "rror" in line]
        if done.returncode == 0:
            return None
        return lines[-1].strip() if lines else f"status {done.returncode}: see {log}"


def run(
    settings: Settings,
    tree: str | None = None,
    out: Path | None = None,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and score everything; the facts, as written to `out` after every training.

    earlier: facts of such a run that did not finish, whose scores are reused.
    """
    started = time.perf_counter()
    planned = groups(settings)
    gone = [d for d in settings.datasets if not d.is_dir()]
    if gone:
        raise ValueError(f"DATASET has {gone[0]}, which is no folder")
    settings.work.mkdir(parents=True, exist_ok=True)
    where = environment.describe(torch.device(settings.devices[0]), tree)
    kept = {} if earlier is None else _kept(earlier, settings, where)

    def is_there(job: Job) -> bool:
        return _key(job) in kept or (settings.work / job.name / DONE).exists()

    def facts() -> dict[str, Any]:
        runs = [
            kept.get(_key(job)) or _facts(job, settings, runner.reasons.get(job.name))
            for group in planned
            for job in group
        ]
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "environment": where,
            "settings": _plain(settings),
            "not_warmed_up": cold,
            "runs": runs,
        }
        if earlier is not None:
            found["earlier_environment"] = earlier["environment"]
        return found

    def save() -> None:
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(facts(), indent=1) + "\n")

    missing = [group for group in planned if not all(map(is_there, group))]
    for group in missing:
        for job in group:
            kept.pop(_key(job), None)
    device = settings.devices[0]
    cold = warm_up(settings, device) if missing and device.startswith("cuda") else []
    runner = _Runner(settings, missing, started, save)
    runner.run()
    save()
    return facts()


def _key(job: Job) -> tuple[str, str, int]:
    return job.dataset.name, job.label, job.seed


def _kept(
    earlier: dict[str, Any], settings: Settings, where: dict[str, Any]
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The earlier runs with scores. ValueError unless they were made in the same way."""
    if settings.transfers:
        raise ValueError("--earlier has no place for --transfer: scores hold no encoders")
    asked = json.loads(json.dumps(_plain(settings)))
    differing = [name for name in asked if asked[name] != earlier["settings"].get(name)]
    differing += [name for name in _SAME if where[name] != earlier["environment"][name]]
    if differing:
        raise ValueError(f"--earlier was made otherwise: {', '.join(differing)}")
    return {(r["dataset"], r["model"], r["seed"]): r for r in earlier["runs"] if "scores" in r}


def _plain(settings: Settings) -> dict[str, Any]:
    values = asdict(settings)
    values["datasets"] = [d.name for d in settings.datasets]
    values["pairs"] = [list(pair) for pair in settings.pairs]
    values["transfers"] = [[a.name, b.name, model] for a, b, model in settings.transfers]
    del values["work"], values["start_until"]
    return values


def _facts(job: Job, settings: Settings, reason: str | None) -> dict[str, Any]:
    run = settings.work / job.name
    facts: dict[str, Any] = {"dataset": job.dataset.name, "model": job.label, "seed": job.seed}
    if reason is None and not (run / DONE).exists():
        reason = "not finished"
    if reason is not None:
        return facts | {"reason": reason}
    if (run / HALF).exists():
        facts["half_window_scores"] = json.loads((run / HALF).read_text())
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = sum(record["step"] for record in records)
    config = json.loads((run / "config.json").read_text())
    return facts | {
        "batch_size": config["batch_size"],
        "patch_size": config["patch_size"],
        "lr": config["lr"],
        "eps": config["eps"],
        "model_options": config["model_options"],
        "iterations": len(records),
        "seconds": records[-1]["seconds"],
        "first_step": records[0]["step"],  # includes what is built then: a CUDA graph, kernels
        "stepping": round(steps, 3),  # seconds, without validations and checkpoints
        "skipped": sum("skipped" in record for record in records),
        "waited": waiting_share(records) or 0.0,
        "memory_mb": max((r["memory_mb"] for r in records if "memory_mb" in r), default=None),
        "curve": [[r["seconds"], r["dsc"]] for r in records if r.get("dsc") is not None],
        "curve_iterations": [i for i, r in enumerate(records, 1) if r.get("dsc") is not None],
        "scores": json.loads((run / DONE).read_text()),
    }
