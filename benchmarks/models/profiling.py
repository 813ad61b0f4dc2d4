"""The verb `profile`: a model's training step, kernel by kernel."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import timing
from benchmarks.measuring.cases import ModelCase
from benchmarks.models.competitors import ModelCompetitor, supervise, weights
from benchmarks.models.gate import batch
from benchmarks.models.run import autocast_dtype, peak_memory

_NAME_WIDTH = 110


def table(
    competitor: ModelCompetitor,
    model: str,
    case: ModelCase,
    dtype: str,
    device: torch.device,
    *,
    mode: str = "training",
    rows: int = 40,
    tiny: bool = False,
    cudnn_benchmark: bool = False,
) -> str:
    """Kernels of one call by total time, below its whole time and peak memory.

    On a CPU the rows are PyTorch's operators and their own time.
    """
    torch.backends.cudnn.benchmark = cudnn_benchmark
    train = mode == "training"
    module = competitor.build(model, tiny, weights(model, tiny)).to(device)
    supervise(module.train(train), train)
    make = competitor.training if train else competitor.inference
    call = make(module, *batch(case.B, case.H, case.W, device, 0), autocast_dtype(dtype))
    memory = peak_memory(call, module, device)
    times = timing.interleaved({"": [call]}, device, seconds=0.5, rounds=1)[""]
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as recorded:
        call()
        timing.synchronize(device)
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in recorded.events():
        if device.type == "cuda" and event.device_type != DeviceType.CUDA:
            continue
        total = totals[event.name]
        total[0] += (
            event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        )
        total[1] += 1
    ordered = sorted(totals.items(), key=lambda item: -item[1][0])
    busy = sum(time for time, _ in totals.values()) / 1e3
    size = "" if memory is None else f", peak {memory / 1e6:.0f} MB beyond weights and inputs"
    lines = [
        f"{competitor.name}, {model}, {mode}, {case.label}, {dtype}: {times.median:.2f} ms"
        f" ({busy:.2f} ms in {sum(int(n) for _, n in totals.values())} kernels{size})"
    ]
    lines += [
        f"{time / 1e3:9.3f} ms {int(count):5}x {100 * time / 1e3 / busy:5.1f} %  "
        f"{name[:_NAME_WIDTH]}"
        for name, (time, count) in ordered[:rows]
    ]
    return "\n".join(lines)
