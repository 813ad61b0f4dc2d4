"""The device's measured limits, and the least time they allow for a case."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass

import torch

from benchmarks.measuring.cases import DIRECTIONS, Case, exponentials
from benchmarks.measuring.timing import Times, measure


@dataclass(frozen=True)
class Ceilings:
    """exp2_per_second: None if it could not be measured; copy_bytes_per_second: read + write."""

    exp2_per_second: float | None
    copy_bytes_per_second: float

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def measure_ceilings(device: torch.device, *, tiny: bool = False) -> Ceilings:
    """Rates of exponentials and copies. On a GPU exp2 needs Triton; on a CPU it is torch.exp."""
    size = (1 << 20) if tiny else (1 << 28 if device.type == "cuda" else 1 << 24)
    source = torch.rand(size, device=device)
    target = torch.empty_like(source)
    count = 3 if tiny else 10

    def copy() -> None:
        target.copy_(source)

    copy()
    copied = Times.of(measure([copy], count, device))
    bandwidth = 2 * source.nbytes / (copied.median / 1e3)
    return Ceilings(_exp2_rate(device, count), bandwidth)


def _exp2_rate(device: torch.device, count: int) -> float | None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return None
        from benchmarks.ops import floors_triton

        work, evaluations = floors_triton.exp2_work(device)
    else:
        values = torch.rand(1 << 15, device=device)  # stays in the cache
        out = torch.empty_like(values)

        def work() -> None:
            for _ in range(32):
                torch.exp(values, out=out)

        evaluations = 32 * values.numel()
    work()
    return evaluations / (Times.of(measure([work], count, device)).median / 1e3)


# Passes over the exponentials: the backward pass needs each once more, to rebuild the states.
PASSES = {"forward": 1, "backward": 1, "forward_backward": 2}


def least_bytes(op: str, mode: str, case: Case, itemsize: int) -> int:
    """Bytes that must move: each input read once, each output and gradient written once.

    itemsize: of the inputs; merged outputs of ss2d and their gradients are float32.
    """
    positions = case.B * case.L
    merged = positions * case.D * 4
    if op == "ss2d":
        inputs = positions * case.D * itemsize
    elif op == "ss2d_scan":
        inputs = positions * (case.D + DIRECTIONS * (case.R + 2 * case.N)) * itemsize
    else:
        inputs = positions * DIRECTIONS * (2 * case.D + 2 * case.N) * itemsize
        merged = positions * DIRECTIONS * case.D * itemsize
    forward, backward = inputs + merged, 2 * inputs + merged
    return {"forward": forward, "backward": backward, "forward_backward": forward + backward}[mode]


def floor_ms(op: str, mode: str, case: Case, itemsize: int, ceilings: Ceilings) -> float:
    """The larger of the times for exponentials and minimum memory traffic, in milliseconds."""
    traffic = least_bytes(op, mode, case, itemsize) / ceilings.copy_bytes_per_second
    if ceilings.exp2_per_second is None:
        return traffic * 1e3
    return max(traffic, PASSES[mode] * exponentials(case) / ceilings.exp2_per_second) * 1e3
