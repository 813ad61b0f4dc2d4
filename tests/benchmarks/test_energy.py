"""Energy per call, from a counter that advances in ticks."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measuring.energy import between_ticks, joules_per_call


@pytest.mark.parametrize("calls_per_tick", [1, 3])
def test_energy_is_counted_from_tick_to_tick(calls_per_tick: int) -> None:
    made: list[str] = []
    calls = [lambda: made.append("first"), lambda: made.append("second")]

    def millijoules() -> int:  # 7 J per call, seen only every few calls; more before the first
        return 10**6 + 7000 * calls_per_tick * (len(made) // calls_per_tick)

    assert between_ticks(calls, millijoules, seconds=0.001) == pytest.approx(7)
    assert set(made) == {"first", "second"}


def test_a_cpu_has_no_counter() -> None:
    assert joules_per_call([lambda: None], torch.device("cpu")) is None


@pytest.mark.gpu
def test_energy_of_a_gpu() -> None:
    pytest.importorskip("pynvml")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    device = torch.device("cuda")
    small, large = (torch.rand(n, n, device=device) for n in (512, 8192))
    joules = [joules_per_call([lambda m=m: m @ m], device) for m in (small, large)]
    assert joules[0] is not None
    assert joules[1] is not None
    assert 0 < joules[0] < joules[1] < 1000
