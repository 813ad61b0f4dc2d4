"""What the chunked PyTorch backend promises beside right results: how it cuts its work."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from cases import ScanCase, SS2DCase, cast_scan, cast_ss2d, check_function, make_scan, make_ss2d
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import swin_umamba_ops as ops
from swin_umamba_ops.backends import _blocks

SMALL = {"_STATE_ELEMENTS": {"cpu": 1 << 9}, "_RECOMPUTED_ELEMENTS": {"cpu": 1 << 13}}


class _Watch(TorchDispatchMode):
    """Counts operations and remembers the largest tensor that any of them returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.largest = max([self.largest, *sizes])
        return out


@pytest.mark.slow
@pytest.mark.parametrize(("min_chunks", "min_channels"), [(1, 1), (2, 5), (3, 7)])
def test_blocks_segments_and_groups_of_any_size_agree(
    monkeypatch: pytest.MonkeyPatch, min_chunks: int, min_channels: int
) -> None:
    """Budgets so small that everything is cut, at places where nothing comes out even."""
    for name, value in SMALL.items():
        monkeypatch.setattr(_blocks, name, dict.fromkeys(value, 1))
    monkeypatch.setattr(_blocks, "_MIN_CHUNKS", min_chunks)
    monkeypatch.setattr(_blocks, "_MIN_CHANNELS", min_channels)
    image = cast_ss2d(make_ss2d(SS2DCase(2, 7, 19, 17, 3, 2)), torch.float64)
    check_function(
        partial(ops.ss2d, backend="pytorch"), partial(ops.ss2d, backend="reference"), image
    )
    sequence = cast_scan(make_scan(ScanCase(2, 14, 325, 3, 2)), torch.float64)

    def scan(backend: str, *tensors: Tensor) -> Tensor:
        out, last = ops.selective_scan(
            *tensors, delta_softplus=True, return_last_state=True, backend=backend
        )
        return torch.cat([out.flatten(), last.flatten()])

    check_function(partial(scan, "pytorch"), partial(scan, "reference"), sequence)


def _watch(case: SS2DCase) -> _Watch:
    leaves = [t.requires_grad_() for t in cast_ss2d(make_ss2d(case), torch.float32).values()]
    with _Watch() as watch:
        ops.ss2d(*leaves, backend="pytorch").sum().backward()
    return watch


def test_never_holds_all_states(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(_blocks, name, value)
    case = SS2DCase(1, 32, 48, 48, 16, 2)
    all_states = case.B * 4 * case.D * case.N * case.H * case.W
    assert _watch(case).largest <= all_states // 8


def test_takes_no_python_step_per_position() -> None:
    """Four times the positions take far less than four times the operations."""
    few, many = (_watch(SS2DCase(1, 4, side, side, 4, 1)).calls for side in (32, 64))
    assert many < 2 * few
