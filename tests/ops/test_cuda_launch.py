"""What the CUDA backend asks its kernels to do, without a GPU to do it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building.toolchain import Nvcc

from swin_umamba_ops.backends import _cuda_launch, _extension
from swin_umamba_ops.backends.cuda import _why_too_old


@pytest.fixture
def cuda() -> Any:
    """The compiled module's CUDA part."""
    part = _extension.part("cuda")
    if part is None:
        pytest.skip("built without CUDA")
    return part


@pytest.fixture
def launched(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Parameters and pass of every launch."""
    found: list[tuple[Any, Any]] = []

    def launch(params: Any, which: Any, stream: int) -> None:
        found.append((params.replace(), which))

    for name in ("StridedParams", "ImageParams", "OneStateParams"):
        monkeypatch.setattr(getattr(cuda, name), "launch", launch)
    monkeypatch.setattr(_cuda_launch, "raw_stream", lambda _: 0)
    return found


def _run(cuda: Any, which: str) -> None:
    """A pass over two images that is cut into three splits of two segments."""
    plan = cuda.params(
        cuda.Family.STRIDED, B=2, K=4, D=128, H=24, W=24, N=16, directions=4, blocks=2, splits=3,
        tiles_per_split=6, segments=2, tiles_per_segment=3, min_shared_bytes=1 << 16,
    )  # fmt: skip
    _cuda_launch.run(which, plan, torch.empty(0), {"x": 16})


def test_a_pass_takes_the_splits_before_it_and_both_are_in_segments(
    cuda: Any, launched: list[tuple[Any, Any]]
) -> None:
    _run(cuda, "BACKWARD")
    assert [which for _, which in launched] == [cuda.Pass.BACKWARD_SPLITS, cuda.Pass.BACKWARD]
    for params, _ in launched:
        assert (params.splits, params.segments, params.tiles_per_segment) == (3, 2, 3)
        assert params.min_shared_bytes == 1 << 16


def test_deterministic_launches_take_each_range_whole(
    cuda: Any, launched: list[tuple[Any, Any]]
) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        _run(cuda, "FORWARD")
    finally:
        torch.use_deterministic_algorithms(False)
    places = [(k, block) for k in range(4) for block in range(2)]
    for which, half in (
        (cuda.Pass.FORWARD_SPLITS, launched[:8]),
        (cuda.Pass.FORWARD, launched[8:]),
    ):
        assert [pass_ for _, pass_ in half] == [which] * 8
        assert [(p.first_direction, p.first_block) for p, _ in half] == places
    for params, _ in launched:
        assert (params.directions, params.blocks, params.segments) == (1, 1, 1)
        assert params.min_shared_bytes == 0


@pytest.mark.parametrize(
    ("family", "warps", "blocks"), [("ONE_STATE", 1, 8), ("ONE_STATE_IMAGE", 4, 2)]
)
def test_deterministic_launches_of_one_state_leave_no_warps_that_add_to_one_place(
    cuda: Any, launched: list[tuple[Any, Any]], family: str, warps: int, blocks: int
) -> None:
    plan = cuda.params(
        getattr(cuda.Family, family), B=2, K=4, D=128, H=24, W=24, N=1, R=6, dtype=1, directions=4,
        blocks=2, one_state=4, one_state_tiles=2, tiles_per_split=18,
    )  # fmt: skip
    torch.use_deterministic_algorithms(True)
    try:
        _cuda_launch.run("BACKWARD", plan, torch.empty(0), {})
    finally:
        torch.use_deterministic_algorithms(False)
    places = [(k, block) for k in range(4) for block in range(blocks)]
    assert [(p.first_direction, p.first_block) for p, _ in launched] == places
    assert {(p.one_state, p.directions, p.blocks) for p, _ in launched} == {(warps, 1, 1)}


def test_a_family_has_its_own_fields(cuda: Any) -> None:
    assert cuda.params(cuda.Family.IMAGE, proj=16).family == cuda.Family.IMAGE
    with pytest.raises(TypeError, match="no field 'delta'"):
        cuda.params(cuda.Family.IMAGE, delta=16)
    with pytest.raises(TypeError, match="no field 'proj'"):
        cuda.params(cuda.Family.STRIDED, proj=16)
    with pytest.raises(TypeError, match="cannot set 'D'"):
        cuda.params(cuda.Family.STRIDED, D=2**31)
    with pytest.raises(TypeError, match="cannot set 'x'"):
        cuda.params(cuda.Family.STRIDED, x="here")


def test_addresses_that_are_read_in_vectors_are_aligned(cuda: Any) -> None:
    plan = cuda.params(cuda.Family.SEQUENCE)
    for name in ("x", "dlast", "dx", "states", "A", "Bs"):
        with pytest.raises(ValueError, match=f"'{name}' is at address 28, expected a multiple of"):
            plan.replace(**{name: 28})
    # Maps inside a row of the projection, taken value by value.
    cuda.params(cuda.Family.STRIDED).replace(Bs=28, Cs=30, dBs=28, dCs=30)
    with pytest.raises(ValueError, match="'dlast'"):
        cuda.params(cuda.Family.STRIDED).replace(dlast=28)


@pytest.mark.parametrize(
    ("version", "compresses", "minimum"),
    [
        ("11.8", False, "11.0"),
        ("12.8", True, "12.4"),
        ("12.2", False, "12.0"),
        ("13.0", True, "13.0"),
    ],
)
def test_a_driver_that_is_too_old_is_named(version: str, compresses: bool, minimum: str) -> None:
    nvcc = Nvcc("nvcc", version, [(9, 0)], compresses)
    assert nvcc.min_driver == minimum
    build = {"cuda_version": version}
    major, minor = map(int, minimum.split("."))
    assert _why_too_old(1000 * major + 10 * minor, minimum, build) is None
    older = 1000 * major + 10 * (minor - 1) if minor else 1000 * (major - 1) + 90
    reason = _why_too_old(older, minimum, build)
    assert reason is not None
    assert f"need a driver for CUDA {minimum} or newer" in reason
    assert f"the driver supports CUDA {older // 1000}.{older % 1000 // 10}" in reason
