"""Host time of eager calls: `python -m benchmarks.ops.host_time [--device cuda] [--backend cuda]`.

Inputs are so small that kernels take almost no time: what remains is Python, the dispatcher,
autograd and, on a GPU, launches, without synchronization. On a CPU the processor time of this
thread is measured, so that other processes do not matter. Prints one JSON object: microseconds per
call, minimum and median of rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import swin_umamba_ops as ops

_B, _D, _SIDE, _N, _R = 1, 8, 2, 1, 1


def _timed(call: Callable[[], object], device: str, calls: int, rounds: int) -> dict[str, float]:
    clock = time.thread_time if device == "cpu" else time.perf_counter
    for _ in range(calls // 10):
        call()
    found = []
    for _ in range(rounds):
        if device != "cpu":
            torch.cuda.synchronize()
        start = clock()
        for _ in range(calls):
            call()
        found.append((clock() - start) / calls * 1e6)
    return {"least": min(found), "median": statistics.median(found)}


def _leaves(device: str) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of ss2d and of selective_scan."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x = normal(_B, _D, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    ss2d = [
        x, normal(4, _R + 2 * _N, _D), normal(4, _D, _R), normal(4, _D), normal(4 * _D, _N),
        normal(4 * _D),
    ]  # fmt: skip
    u = normal(1, 4, 4)
    scan = [u, u.abs(), -normal(4, 1).abs(), normal(1, 1, 1, 4), normal(1, 1, 1, 4), normal(4)]
    return ss2d, scan


def _both(function: Callable[..., Tensor], inputs: list[Tensor], leaves: list[Tensor]) -> object:
    out = function(*inputs)
    return torch.autograd.grad(out, leaves, torch.ones_like(out))


def measure(backend: str, device: str, calls: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds of host time by case."""
    results = {}
    functions: dict[str, Callable[..., Tensor]] = {
        "ss2d": functools.partial(ops.ss2d, backend=backend),
        "selective_scan": functools.partial(ops.selective_scan, backend=backend),
    }
    for (name, function), tensors in zip(functions.items(), _leaves(device), strict=True):
        leaves = [t.detach().requires_grad_() for t in tensors]
        frozen = [leaves[0], *tensors[1:]]
        cases: dict[str, Callable[[], object]] = {
            "forward": functools.partial(function, *tensors),
            "forward + backward": functools.partial(_both, function, leaves, leaves),
            "forward + backward, parameters frozen": functools.partial(
                _both, function, frozen, frozen[:1]
            ),
        }
        for kind, call in cases.items():
            results[f"{name}, {kind}"] = _timed(call, device, calls, rounds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.backend, options.device, options.calls, options.rounds)
    facts = {"torch": torch.__version__, "device": options.device, "backend": options.backend}
    print(json.dumps({**facts, "microseconds": found}, indent=1))


if __name__ == "__main__":
    main()
