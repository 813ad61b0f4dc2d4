"""What the CUDA backend asks its kernels to do, without a GPU to do it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from swin_umamba_ops.backends import _cuda_launch, _extension


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Parameters and pass of every launch."""
    module, _ = _extension.load()
    if module is None or not hasattr(module, "cuda"):
        pytest.skip("built without CUDA")
    found: list[tuple[Any, Any]] = []

    def launch(params: Any, which: Any, stream: int) -> None:
        found.append((module.cuda.ScanParams(params), which))

    monkeypatch.setattr(module.cuda, "launch", launch)
    monkeypatch.setattr(_cuda_launch, "raw_stream", lambda _: 0)
    return found


def _run(which: str) -> None:
    """A pass over two images that is cut into three splits of two legs."""
    plan = _extension.module().cuda.ScanParams(
        B=2, K=4, D=128, H=24, W=24, N=16, directions=4, blocks=2, splits=3, tiles_per_split=6,
        legs=2, tiles_per_leg=3, least_shared=1 << 16,
    )  # fmt: skip
    _cuda_launch.run(which, plan, torch.empty(0), _cuda_launch.Addresses(x=16))


def test_a_pass_takes_the_splits_before_it_and_both_are_in_legs(
    launched: list[tuple[Any, Any]],
) -> None:
    _run("BACKWARD")
    kinds = _extension.module().cuda.Pass
    assert [which for _, which in launched] == [kinds.BACKWARD_SPLITS, kinds.BACKWARD]
    for params, _ in launched:
        assert (params.splits, params.legs, params.tiles_per_leg) == (3, 2, 3)
        assert params.least_shared == 1 << 16


def test_deterministic_launches_take_each_range_whole(launched: list[tuple[Any, Any]]) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        _run("FORWARD")
    finally:
        torch.use_deterministic_algorithms(False)
    kinds = _extension.module().cuda.Pass
    places = [(k, block) for k in range(4) for block in range(2)]
    for which, half in ((kinds.FORWARD_SPLITS, launched[:8]), (kinds.FORWARD, launched[8:])):
        assert [pass_ for _, pass_ in half] == [which] * 8
        assert [(p.first_direction, p.first_block) for p, _ in half] == places
    for params, _ in launched:
        assert (params.directions, params.blocks, params.legs) == (1, 1, 1)
        assert params.least_shared == 0


@pytest.mark.parametrize("proj", [0, 16])
def test_deterministic_launches_of_one_state_leave_no_warps_that_add_to_one_place(
    launched: list[tuple[Any, Any]], proj: int
) -> None:
    plan = _extension.module().cuda.ScanParams(
        B=2, K=4, D=128, H=24, W=24, N=1, R=6, dtype=1, directions=4, blocks=2, one_state=4,
        one_state_tiles=2, tiles_per_split=18,
    )  # fmt: skip
    torch.use_deterministic_algorithms(True)
    try:
        _cuda_launch.run("BACKWARD", plan, torch.empty(0), _cuda_launch.Addresses(proj=proj))
    finally:
        torch.use_deterministic_algorithms(False)
    warps, blocks = (4, 2) if proj else (1, 8)
    places = [(k, block) for k in range(4) for block in range(blocks)]
    assert [(p.first_direction, p.first_block) for p, _ in launched] == places
    assert {(p.one_state, p.directions, p.blocks) for p, _ in launched} == {(warps, 1, 1)}
