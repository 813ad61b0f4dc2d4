"""Which kernels the CUDA backend launches for which inputs, without a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks.ops import every_kernel
from swin_umamba_ops.backends import _cuda_launch, _cuda_reduction, _extension, cuda
from swin_umamba_ops.inputs import ScanInputs, SS2DInputs

Launches = list[tuple[str, str]]


@pytest.fixture(params=[(1, 4, 1), (3, 2, 2)], ids="{0[0]} splits".format)
def launches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    """Family and pass of every launch, on a GPU that is none, whose work is cut in one way."""
    part = _extension.part("cuda")
    if part is None:
        pytest.skip("built without CUDA")
    found: Launches = []

    def partition(params: Any, _: Any) -> None:
        params.splits, params.tiles_per_split, params.segments = request.param

    def launch(params: Any, which: Any, stream: int) -> None:
        found.append((params.family.name, which.name))

    for name in ("StridedParams", "ImageParams", "OneStateParams"):
        monkeypatch.setattr(getattr(part, name), "partition", partition)
        monkeypatch.setattr(getattr(part, name), "launch", launch)
    monkeypatch.setattr(part.Reductions, "launch", lambda *_: None)
    monkeypatch.setattr(part, "max_shared_bytes", lambda _: 227 * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(cuda, "_built_for", lambda: ("9.0",))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    for module in (_cuda_launch, _cuda_reduction):
        monkeypatch.setattr(module, "raw_stream", lambda _: 0)
    cached = (
        _cuda_launch.why_too_large,
        cuda._ss2d_plan,
        cuda._sequence_plan,
        cuda._sequence_family,
        cuda._code_for,
    )
    for function in cached:
        function.cache_clear()
    found.append(("splits", str(request.param[0])))
    yield found
    for function in cached:
        function.cache_clear()
    torch.use_deterministic_algorithms(False)


def _expected(launches: Launches, family: str) -> set[tuple[str, str]]:
    passes = ["FORWARD", "BACKWARD"]
    if launches.pop(0) != ("splits", "1"):
        passes += ["FORWARD_SPLITS", "BACKWARD_SPLITS"]
    return {(family, which) for which in passes}


def _ss2d(dtype: torch.dtype, N: int, R: int) -> None:
    B, H, W, D = 2, 9, 13, 64
    inputs = SS2DInputs(
        x=torch.ones(B, H, W, D, dtype=dtype),
        proj=torch.ones(B, H, W, 4, R + 2 * N, dtype=dtype),
        dt_projs_weight=torch.ones(4, D, R, dtype=dtype),
        dt_projs_bias=torch.ones(4, D),
        A_logs=torch.ones(4 * D, N),
        Ds=torch.ones(4 * D),
    )
    y, states = cuda.ss2d_forward(inputs, torch.float32, save=True)
    gradients = cuda.ss2d_backward(y, inputs, states)
    assert [g is not None and g.shape for g in gradients] == [t.shape for t in inputs]


def _scan(dtype: torch.dtype, N: int, length: int) -> None:
    B, D, G = 2, 6, 2
    u, maps = torch.ones(B, D, length, dtype=dtype), torch.ones(B, G, N, length, dtype=dtype)
    inputs = ScanInputs(u, u, torch.ones(D, N), maps, maps, None, torch.ones(D), True)
    out, last, states = cuda.selective_scan_forward(inputs, dtype, save=True)
    cuda.selective_scan_backward(out, last, inputs, states)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("call", "dtype", "N", "size", "family"),
    [
        (_ss2d, torch.float16, 16, 6, "IMAGE"),
        (_ss2d, torch.bfloat16, 64, 24, "IMAGE"),
        (_ss2d, torch.float16, 1, 6, "ONE_STATE_IMAGE"),
        (_ss2d, torch.float16, 1, 5, "ONE_STATE"),
        (_ss2d, torch.float32, 1, 6, "ONE_STATE_IMAGE"),
        (_ss2d, torch.float32, 1, 5, "ONE_STATE"),
        (_ss2d, torch.float32, 16, 6, "IMAGE"),
        (_ss2d, torch.float32, 16, 7, "STRIDED"),
        (_ss2d, torch.float16, 16, 7, "STRIDED"),
        (_scan, torch.float16, 16, 64, "SEQUENCE"),
        (_scan, torch.float32, 16, 64, "SEQUENCE"),
        (_scan, torch.float32, 16, 63, "STRIDED"),
        (_scan, torch.bfloat16, 4, 64, "STRIDED"),
    ],
)
def test_families(
    launches: Launches,
    call: Callable[[torch.dtype, int, int], None],
    dtype: torch.dtype,
    N: int,
    size: int,
    family: str,
    deterministic: bool,
) -> None:
    torch.use_deterministic_algorithms(deterministic)
    expected = _expected(launches, family)
    call(dtype, N, size)
    assert set(launches) == expected


def test_every_kernel_runs_clusters_too(
    launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory checkers see: both passes in clusters of all numbers of blocks."""
    found: set[tuple[str, int, int]] = set()

    def launch(params: Any, which: Any, stream: int) -> None:
        found.add((which.name, params.one_state_blocks, params.one_state_tiles))

    monkeypatch.setattr(_extension.part("cuda").OneStateParams, "launch", launch)
    for blocks in every_kernel.CLUSTERS:
        with every_kernel.in_clusters(blocks):
            _ss2d(torch.float16, 1, 6)
    assert found == {
        *(("FORWARD", 2, 4), ("FORWARD", 4, 4), ("BACKWARD", 2, 3), ("BACKWARD", 4, 3)),
    }
