"""Run by `benchmarks.training.scale` in each process, with its request file as argument.

REQUEST is a JSON file; the process of rank 0 writes its measurements to the file named there.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring.cases import ModelCase
from benchmarks.models.competitors import tiny_options
from swin_umamba.data import Case
from swin_umamba.loop.world import World
from swin_umamba.train import TrainConfig
from swin_umamba.train.stepping import Stepper

CLASSES = 14  # of abdominal MRI
IMAGES = 8
WARM_UP = 10  # steps
MARGIN = 64  # pixels by which images are larger than patches
EXCHANGES = 20  # including ten for warm-up


def _cases(case: ModelCase) -> list[Case]:
    """Random images, the same in every process."""
    rng = np.random.default_rng(0)
    shape = (case.H + MARGIN, case.W + MARGIN)
    return [
        Case(
            f"noise {i}",
            rng.standard_normal((1, *shape), np.float32),
            rng.integers(0, CLASSES, shape),
        )
        for i in range(IMAGES)
    ]


def _measure(request: dict[str, Any], model: str, case: ModelCase, world: World) -> dict[str, Any]:
    config = TrainConfig(
        model=model,
        model_options=tiny_options(model) if request["tiny"] else {},
        num_classes=CLASSES,
        patch_size=(case.H, case.W),
        batch_size=case.B * world.size,
        augment=request["augment"],
        iterations=10**6,
        device=request["device"],
        amp=request["amp"],
        cuda_graph=False,  # impossible with several processes
    )
    cuda = world.device.type == "cuda"
    with Stepper(config, _cases(case), world, lambda: False, pretrained=False) as stepper:
        warm_up = 2 if request["tiny"] else WARM_UP
        before = [stepper.step(i, 0.0, 1.0)["step"] for i in range(warm_up)]
        # Every process must take the same number of steps.
        (each,) = world.highest(statistics.median(before[-5:]))
        count = min(max(round(request["cell_seconds"] / each), 3), 1000)
        if cuda:
            torch.cuda.reset_peak_memory_stats(world.device)
        world.wait()
        records = [stepper.step(i, 0.0, 1.0) for i in range(warm_up, warm_up + count)]
        half = stepper.half
        gradients = sum(p.numel() * p.element_size() for p in stepper.model.parameters())
    peak = torch.cuda.max_memory_allocated(world.device) if cuda else None
    return {
        "model": model,
        "case": asdict(case),
        "dtype": "float32" if half is None else str(half).removeprefix("torch."),
        "seconds": [record["step"] for record in records],
        "waited": sum(record["waited"] for record in records),
        "images": count * config.batch_size,
        "peak_bytes": peak,
        "gradient_bytes": gradients,
        "exchange_seconds": _exchange_seconds(gradients, world),
    }


def _exchange_seconds(size: int, world: World) -> float | None:
    """Time of one all-reduce of this many bytes; None with one process."""
    if world.size == 1:
        return None
    buffer = torch.zeros(size // 4, device=world.device)
    seconds = []
    for _ in range(EXCHANGES):
        _wait_for_device(world)
        start = time.perf_counter()
        torch.distributed.all_reduce(buffer)
        _wait_for_device(world)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[EXCHANGES // 2 :])


def _wait_for_device(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def main(path: Path) -> None:
    request = json.loads(path.read_text())
    world = World(request["device"])
    found = [
        _measure(request, model, ModelCase(**case), world)
        for model in request["models"]
        for case in request["cases"]
    ]
    if world.main:
        Path(request["answer"]).write_text(json.dumps(found))
    world.wait()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
