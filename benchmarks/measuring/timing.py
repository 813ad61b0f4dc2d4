"""Device timing: warmed up, with rotating inputs, in rounds interleaved between competitors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Milliseconds of single calls: median, 20th and 80th percentile, minimum, and their number."""

    median: float
    p20: float
    p80: float
    least: float
    count: int

    @staticmethod
    def of(samples: Sequence[float]) -> Times:
        ordered = sorted(samples)
        last = len(ordered) - 1
        return Times(
            median=statistics.median(ordered),
            p20=ordered[round(0.2 * last)],
            p80=ordered[round(0.8 * last)],
            least=ordered[0],
            count=len(ordered),
        )


def cache_bytes(device: torch.device) -> int:
    """Size of the cache that rotating inputs must exceed; 64 MiB is assumed for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return 64 << 20


def input_sets(nbytes: int, device: torch.device, most: int = 16) -> int:
    """Number of input sets of nbytes to rotate through so that none is still in the cache."""
    return min(most, max(2, -(-2 * cache_bytes(device) // max(nbytes, 1))))


def warm_up(device: torch.device, seconds: float) -> None:
    """Keep the device busy until its clocks are up."""
    n = 2048 if device.type == "cuda" else 256
    a = torch.rand(n, n, device=device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(10):
            a = torch.matmul(a, a) / n
        synchronize(device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(calls: Sequence[Call], count: int, device: torch.device) -> list[float]:
    """Milliseconds of `count` calls, cycling through `calls`.

    On a GPU by events around each call, without synchronizing in between, so that launch-bound work
    shows its launch overhead.
    """
    if device.type != "cuda":
        samples = []
        for i in range(count):
            start = time.perf_counter()
            calls[i % len(calls)]()
            samples.append((time.perf_counter() - start) * 1e3)
        return samples
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for i, (begin, end) in enumerate(events):
        begin.record()
        calls[i % len(calls)]()
        end.record()
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) for begin, end in events]


def interleaved(
    competitors: Mapping[str, Sequence[Call]],
    device: torch.device,
    *,
    seconds: float,
    rounds: int,
    most: int = 50,
) -> dict[str, Times]:
    """Times of each competitor, about `seconds` each, in `rounds` alternating turns.

    competitors: name -> the same call on each of the rotating input sets.
    """
    counts = {}
    for name, calls in competitors.items():
        calls[0]()
        estimate = statistics.median(measure(calls, min(3, len(calls)), device)) / 1e3
        counts[name] = max(1, min(most, round(seconds / rounds / max(estimate, 1e-6))))
    samples: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, calls in competitors.items():
            # after another competitor's turn, the first call finds cold caches and allocators
            calls[-1]()
            samples[name] += measure(calls, counts[name], device)
    return {name: Times.of(values) for name, values in samples.items()}


def graphed(calls: Sequence[Call], device: torch.device) -> list[Call]:
    """The same calls as replays of CUDA graphs. RuntimeError if a call cannot be captured."""
    replays: list[Call] = []
    side = torch.cuda.Stream(device)
    for call in calls:
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        replays.append(graph.replay)
    return replays
