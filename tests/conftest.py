"""Shared by all tests: threads per worker, skips without a GPU, poisoned memory, golden values."""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Workers of pytest-xdist share the cores, as do processes started by tests. OpenMP reads its
# variable when torch is imported.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    _CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (_CORES or 1) // _WORKERS)))
    os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", os.environ["OMP_NUM_THREADS"])

# Until all tests are collected: see pytest_collection_finish.
gc.disable()

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"

# Tables keep one line per row, wherever the tests run.
os.environ["COLUMNS"] = "200"
# cuBLAS is deterministic, and torch's deterministic mode accepts it, only with this; it is read
# when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device"))


def pytest_collection_finish() -> None:
    """Leave modules and tests, millions of objects that stay, out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(allocate)
    def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        if tensor.is_floating_point() and not tensor.is_meta:
            with torch.no_grad():
                tensor.fill_(torch.nan)
        return tensor

    return wrapper


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fill memory that torch.empty and similar functions leave undefined with NaN, so that reads
    show."""
    # `with torch.device(...)` knows what allocates from a list that it makes once, now.
    with torch.device("meta"):
        torch.empty(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", _poisoned(torch.empty))
        patch.setattr(torch, "empty_like", _poisoned(torch.empty_like))
        patch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty))
        yield


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of golden values."""
    return FIXTURES


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Arrays and metadata of a fixture by file name."""

    def load(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        with np.load(FIXTURES / name) as arrays:
            values = {key: arrays[key] for key in arrays.files}
        return values, json.loads(str(values.pop("meta")))

    return load


@pytest.fixture(scope="session")
def rule() -> ModuleType:
    """The rule that generates the fixtures' weights and inputs: fixtures/weights.py."""
    path = FIXTURES / "weights.py"
    spec = importlib.util.spec_from_file_location("fixture_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Material too large for this repository: $SWIN_UMAMBA_SHARED, or `shared` beside the clone.

    Tests that need it are skipped if it is missing.
    """
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SWIN_UMAMBA_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the shared material, not found at {folder}")
    return folder
