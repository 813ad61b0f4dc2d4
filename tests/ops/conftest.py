"""The backends on their devices, as a fixture that every test of the ops can take."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
from cases import Target
from interpreted import spare_the_interpreter

from swin_umamba_ops import backends

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    spare_the_interpreter()


def _targets(device: str) -> list[Target]:
    """The backends that "auto" would consider for a device: Triton's interpreter is not one."""
    return [
        Target(row.name, device)
        for row in backends.BACKENDS.values()
        if row.considered("ss2d", torch.device(device))
    ]


CPU_TARGETS, GPU_TARGETS = _targets("cpu"), _targets("cuda")


def _params(targets: list[Target], *marks: pytest.MarkDecorator) -> list[object]:
    return [pytest.param(t, marks=marks, id=f"{t.backend}-{t.device}") for t in targets]


@pytest.fixture(params=[*_params(CPU_TARGETS), *_params(GPU_TARGETS, pytest.mark.gpu)])
def target(request: pytest.FixtureRequest) -> Target:
    """Each backend on each device it supports; skipped, with the reason, where it is unusable."""
    return _usable(request.param)


@pytest.fixture(params=_params(GPU_TARGETS, pytest.mark.gpu))
def gpu_target(request: pytest.FixtureRequest) -> Target:
    """Each backend that supports GPUs, for what only concerns those."""
    return _usable(request.param)


def _usable(target: Target) -> Target:
    reason = target.why_not(torch.float32, 4)
    if reason is not None:
        pytest.skip(f"{target.backend} on {target.device}: {reason}")
    return target


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """Forget what the registry remembers, before and after: for tests that change what it finds."""
    cached = (
        backends.load,
        backends.why_not_loaded,
        backends.resolve,
        backends.kernels,
        backends._warn_of_slower,
    )

    def forget() -> None:
        for function in cached:
            function.cache_clear()

    forget()
    yield
    forget()
