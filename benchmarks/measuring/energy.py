"""Energy per call on a GPU, from the driver's counter."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.measuring.timing import Call, synchronize


def joules_per_call(
    calls: Sequence[Call], device: torch.device, seconds: float = 0.4
) -> float | None:
    """Energy of the whole board per call, in joules, over at least `seconds` of calls.

    None on a CPU, or if the package nvidia-ml-py is not installed.
    """
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        return None

    def wait_for(call: Call) -> None:
        call()
        synchronize(device)

    return between_ticks([partial(wait_for, call) for call in calls], _counter(device), seconds)


def between_ticks(calls: Sequence[Call], millijoules: Callable[[], int], seconds: float) -> float:
    """Joules per call. The counter advances every 20 to 100 ms, so measure from tick to tick."""
    last, done, since, start = millijoules(), 0, None, 0.0
    while True:
        calls[done % len(calls)]()
        done += 1
        now = millijoules()
        if now == last:
            continue
        last = now
        if since is None:
            since, done, start = now, 0, time.perf_counter()
        elif time.perf_counter() - start >= seconds:
            return (now - since) / 1e3 / done


def _counter(device: torch.device) -> Callable[[], int]:
    import pynvml

    pynvml.nvmlInit()
    uuid = torch.cuda.get_device_properties(device).uuid
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
