"""Measure the largest batch size for a GPU with steps of the actual training."""

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

TRIED = (2, 4)  # batch sizes measured; the memory of larger ones is extrapolated from them
LESS = 0.9  # factor for a batch that proved too large


def fitting_patches(peak: Callable[[int], float], room: float, most: int) -> int:
    """The largest batch with peak memory within `room`, 1 to `most`; 1 if none is.

    peak: bytes used by a step with a given batch size, infinite if it does not fit. It is roughly
    linear, so few calls suffice; any result above 1 has been tried.
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
    """Patches per process for training on a CUDA device, 1 to `most`.

    A fifth of the free memory is left for what steps do not show: fragmentation, validation.
    memory: bytes to plan for, if the GPU has more.
    """
    free, _ = torch.cuda.mem_get_info(device)
    usable = free + torch.cuda.memory_reserved(device)
    room = USABLE * (usable if memory is None else min(usable, memory))
    return fitting_patches(lambda size: step_memory(config, cases, plan, device, size), room, most)


def step_memory(
    config: TrainConfig, cases: Sequence[Case], plan: Plan, device: torch.device, size: int
) -> float:
    """Peak bytes of training with a given batch size, infinite if it does not fit."""
    # Without compilation and graphs, which need about as much. A frozen encoder, as at the start,
    # would need less.
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
            # Without fp16's scaling, whose first step may only lower the scale: in the second step
            # the optimizer's state must exist besides everything else.
            stepper.scaler = torch.amp.GradScaler(device.type, enabled=False)
            for iteration in range(2):
                stepper.step(iteration, 0.0, 1.0)
        return float(torch.cuda.max_memory_allocated(device))
    except torch.OutOfMemoryError:
        return math.inf
    finally:
        _release(device)


def _release(device: torch.device) -> None:
    """Free unused cached memory, and reset the peak statistics."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
