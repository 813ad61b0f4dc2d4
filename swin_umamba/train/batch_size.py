"""How many patches a batch may have on a GPU: measured by steps of the very training."""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from swin_umamba.data import Case, Plan
from swin_umamba.data.prepare.batch_size import USABLE
from swin_umamba.loop.world import Alone
from swin_umamba.runs.config import TrainConfig
from swin_umamba.train.stepping import Stepper

TRIED = (2, 4)  # patches; from their memory follows that of more
LESS = 0.9  # of a batch that proved too large


def fitting_patches(peak: Callable[[int], float], room: float, most: int) -> int:
    """The largest batch whose peak memory is within `room`, 1 to `most`; 1 if none is.

    peak: bytes that a step with so many patches takes, infinite where they do not fit. It is about
    linear, so that few calls do; any batch above 1 that is returned has been tried.
    """
    peak = functools.cache(peak)
    small, large = TRIED
    least, more = peak(small), peak(large)
    fitting = large - 1
    if more <= room:
        each = max((more - least) / (large - small), 1)
        fitting = large + int((room - more) / each)
    fitting = min(fitting, most)
    while fitting > 1 and peak(fitting) > room:
        fitting = min(int(LESS * fitting), fitting - 1)
    return fitting


def measured_patches(
    config: TrainConfig,
    cases: Sequence[Case],
    plan: Plan,
    device: torch.device,
    *,
    most: int,
    memory: int | None = None,
) -> int:
    """Patches that one process may train with on a CUDA device, 1 to `most`.

    A fifth of the memory that is free stays so, for what steps do not show: fragments, validation.
    memory: bytes to plan for, where the GPU has more.
    """
    free, _ = torch.cuda.mem_get_info(device)
    usable = free + torch.cuda.memory_reserved(device)
    room = USABLE * (usable if memory is None else min(usable, memory))
    return fitting_patches(lambda size: step_memory(config, cases, plan, device, size), room, most)


def step_memory(
    config: TrainConfig, cases: Sequence[Case], plan: Plan, device: torch.device, size: int
) -> float:
    """Peak bytes of training on batches of so many patches, infinite where they do not fit."""
    # Not compiled, and without graphs, which take about as much. A frozen encoder, as at first,
    # would take less.
    plain = replace(
        config,
        batch_size=size,
        accumulate=1,
        augment=False,
        workers=0,
        freeze_iterations=0,
        compile=False,
        cuda_graph=False,
        iterations=2,
    )
    _release(device)
    try:
        with Stepper(
            plain, cases, Alone(device), lambda: False, pretrained=False, plan=plan
        ) as stepper:
            # Without fp16's scale, which a first step may only lower: the second one then has the
            # optimizer's state beside everything else.
            stepper.scaler = torch.amp.GradScaler(device.type, enabled=False)
            for iteration in range(2):
                stepper.step(iteration, 0.0, 1.0)
        return float(torch.cuda.max_memory_allocated(device))
    except torch.OutOfMemoryError:
        return math.inf
    finally:
        _release(device)


def _release(device: torch.device) -> None:
    """Give back what nothing uses any more, and count peaks from here."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
