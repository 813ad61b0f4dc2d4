"""The default batch size: from measured steps, the dataset and the number of processes."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from predict_helpers import plan_of
from train_helpers import TINY_MODEL

from swin_umamba.data import CachedCases, Case, Plan, Split
from swin_umamba.loop.world import Alone
from swin_umamba.models import model_names
from swin_umamba.runs.config import TrainConfig
from swin_umamba.train import from_dataset
from swin_umamba.train.batch_size import (
    USABLE,
    fitting_patches,
    measured_patches,
    step_memory,
)
from swin_umamba.train.from_dataset import Prepared, with_planned_batches
from swin_umamba.train.stepping import Stepper

GPU_BYTES = 6_000_000_000


@pytest.mark.parametrize(
    ("peak", "most", "expected", "calls"),
    [
        # Bytes for a given batch size, of 1000 available.
        (lambda n: 100 + 30 * n, 64, 30, [2, 4, 30]),
        (lambda n: 100 + 30 * n, 8, 8, [2, 4, 8]),
        (lambda n: 100 + 30 * n, 3, 3, [2, 4, 3]),
        (lambda n: 100 + 10 * n + n * n, 64, 25, None),  # more than by the first two
        (lambda n: 100 + 300 * n, 64, 3, [2, 4, 3]),
        (lambda n: math.inf if n > 2 else 990, 64, 2, [2, 4, 3]),
        (lambda n: math.inf, 64, 1, [2, 4, 3]),
        (lambda n: 500, 64, 64, [2, 4, 64]),
    ],
)
def test_what_fits(
    peak: Callable[[int], float], most: int, expected: int, calls: list[int] | None
) -> None:
    tried: list[int] = []

    def noted(size: int) -> float:
        tried.append(size)
        return peak(size)

    assert fitting_patches(noted, 1000, most) == expected
    assert len(tried) == len(set(tried))
    assert calls is None or tried == calls


@pytest.mark.parametrize(
    ("largest", "measured", "size", "expected"),
    [
        *((12, 40, 1, 12), (12, 5, 1, 5), (13, 40, 2, 12), (13, 3, 2, 6), (3, 40, 4, 4)),
        *((None, 40, 1, 2), (2, 1, 1, 1)),
    ],
)
def test_on_gpus(
    monkeypatch: pytest.MonkeyPatch, largest: int | None, measured: int, size: int, expected: int
) -> None:
    class Several(Alone):
        def __init__(self, device: str) -> None:
            super().__init__(torch.device(device))
            self.size = size

        def highest(self, *values: float) -> list[float]:
            return list(values)

    def measure(*arguments: Any, most: int, memory: int | None) -> int:
        assert memory == GPU_BYTES
        return min(measured, most)

    monkeypatch.setattr(from_dataset, "_on_gpu", lambda device: True)
    monkeypatch.setattr(from_dataset, "World", Several)
    monkeypatch.setattr(from_dataset, "measured_patches", measure)
    for found in with_planned_batches([_prepared(largest), _prepared(largest, fold="1")]):
        assert found.config.batch_size == expected
        assert found.plan.batch_size == (None if largest is None else expected)


def test_on_a_cpu() -> None:
    (found,) = with_planned_batches([_prepared(12)])
    assert found.config.batch_size == 2


def test_a_step_is_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the other processes, which would wait for one that has run out of memory."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12_345)
    config, plan, cases = _training(
        "swin_umamba_d",
        model_options=TINY_MODEL,
        patch_size=(32, 32),
        accumulate=2,
        ema=0.9,
        compile=True,
        pretrained="nowhere.pth",
        iterations=1,
    )
    sizes: list[int] = []
    step = Stepper.step

    def noted(stepper: Stepper, *arguments: Any) -> Any:
        sizes.append(stepper.config.batch_size)
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError
        record = step(stepper, *arguments)
        assert "skipped" not in record
        assert stepper.optimizer.state
        return record

    monkeypatch.setattr(Stepper, "step", noted)
    found = [step_memory(config, cases, plan, torch.device("cpu"), size) for size in (3, 4)]
    assert found == [12_345, math.inf]
    assert sizes == [3, 3, 4]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        *((model, {"amp": "bf16"}) for model in model_names()),
        ("swin_umamba", {"amp": "fp16", "deep_supervision": False, "ema": 0.99}),
        ("swin_umamba_d", {"amp": "off"}),
        ("swin_umamba_v1", {"amp": "bf16", "checkpoint_activations": True}),
    ],
)
def test_a_planned_batch_trains_within_the_memory(model: str, settings: dict[str, Any]) -> None:
    """In a share of the GPU of just that size, of which steps use most; 20 channels, 30 classes."""
    device = torch.device("cuda:0")
    config, plan, cases = _training(model, patch_size=(256, 320), **settings)
    size = measured_patches(config, cases, plan, device, most=500, memory=GPU_BYTES)
    peak = step_memory(config, cases, plan, device, size)
    print(f"{model} {settings}: {size} patches, {peak / 1e9:.2f} of {GPU_BYTES / 1e9:g} GB")
    assert 0.6 * GPU_BYTES < peak <= USABLE * GPU_BYTES
    total = torch.cuda.get_device_properties(device).total_memory
    available = _reserved(device) + GPU_BYTES
    torch.cuda.set_per_process_memory_fraction(available / total, device)
    try:
        for graph in (False, True)[: 1 if config.checkpoint_activations else 2]:
            changes = {"batch_size": size, "workers": 0, "cuda_graph": graph}
            with Stepper(
                config.changed(changes),
                *(cases, Alone(device), lambda: False),
                pretrained=False,
                plan=plan,
            ) as stepper:
                for iteration in range(3):
                    stepper.step(iteration, 0.0, 1.0)
            assert torch.cuda.max_memory_reserved(device) <= available
            del stepper
            _reserved(device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _reserved(device: torch.device) -> int:
    """Free what can be freed; the bytes that other tests of this process still hold."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def _prepared(largest: int | None, fold: str = "0") -> Prepared:
    none = CachedCases([])
    return Prepared(
        TrainConfig(device="cpu", fold=fold),
        plan_of(2),
        Split((), ()),
        none,
        none,
        largest_batch=largest,
        gpu_memory=GPU_BYTES,
    )


def _training(model: str, **settings: Any) -> tuple[TrainConfig, Plan, list[Case]]:
    channels, classes = 20, 30
    config = TrainConfig(model=model, in_channels=channels, num_classes=classes, **settings)
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, *config.patch_size)).astype(np.float32)
    mask = rng.integers(0, classes, config.patch_size)
    return config, plan_of(classes, channels), [Case("noise", image, mask)]
