"""Kernels whose blocks want more shared memory than a GPU gives are not taken, and said so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from swin_umamba_ops.backends import _extension, cuda
from swin_umamba_ops.backends._cuda_launch import why_too_large

DEVICE = torch.device("cuda:0")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int, int], None]]:
    """A GPU that is none, of a capability and so many KB of shared memory for a block."""
    module, _ = _extension.load()
    if module is None or not hasattr(module, "cuda"):
        pytest.skip("built without CUDA")

    def make(major: int, minor: int, kilobytes: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, minor))
        monkeypatch.setattr(module.cuda, "max_shared_bytes", lambda _: 1024 * kilobytes)
        # Whatever the module here was built for.
        monkeypatch.setattr(cuda, "_built_for", lambda: (f"{major}.{minor}",))

    kept = (why_too_large, cuda._sequence_family, cuda._code_for)
    for function in kept:
        function.cache_clear()
    yield make
    for function in kept:
        function.cache_clear()


@pytest.mark.parametrize("R", [2, 6, 12, 24, 48])
@pytest.mark.parametrize("capability", [(8, 0, 163), (8, 6, 99), (9, 0, 227), (12, 0, 99)], ids=str)
def test_the_models_scans_have_their_kernels_everywhere(
    gpu: Callable[[int, int, int], None], capability: tuple[int, int, int], R: int
) -> None:
    gpu(*capability)
    assert cuda._ss2d_family(DEVICE, torch.float16, 192, 16, R).name == "IMAGE"
    assert cuda.why_unsupported(DEVICE, torch.float16, 16) is None


def test_others_go_to_the_strided_kernels_where_they_are_too_large(
    gpu: Callable[[int, int, int], None],
) -> None:
    gpu(9, 0, 227)
    assert cuda._ss2d_family(DEVICE, torch.float16, 192, 8, 6).name == "IMAGE"
    assert cuda._sequence_family(DEVICE, torch.float32, 16, 64).name == "SEQUENCE"
    for function in (why_too_large, cuda._sequence_family):
        function.cache_clear()
    gpu(8, 6, 99)
    assert cuda._ss2d_family(DEVICE, torch.float16, 192, 8, 6).name == "STRIDED"
    assert cuda._sequence_family(DEVICE, torch.float32, 16, 64).name == "STRIDED"
    assert cuda._sequence_family(DEVICE, torch.float16, 16, 64).name == "SEQUENCE"
    assert cuda.why_unsupported(DEVICE, torch.float32, 8) is None


@pytest.mark.parametrize(("N", "serves"), [(16, True), (32, True), (64, False), (8, False)])
def test_a_gpu_with_64_kb_says_what_it_cannot(
    gpu: Callable[[int, int, int], None], N: int, serves: bool
) -> None:
    gpu(7, 5, 64)
    reason = cuda.why_unsupported(DEVICE, torch.float32, N)
    assert (reason is None) == serves
    if reason is not None:
        assert "of shared memory for a block, this GPU gives 65536" in reason


@pytest.mark.parametrize("capability", [(8, 0, 163), (8, 6, 99), (9, 0, 227), (12, 0, 99)], ids=str)
@pytest.mark.parametrize("R", [2, 6, 12, 24, 48])
def test_one_state_has_its_kernels_everywhere(
    gpu: Callable[[int, int, int], None], capability: tuple[int, int, int], R: int
) -> None:
    gpu(*capability)
    assert cuda._ss2d_family(DEVICE, torch.float16, 96, 1, R).name == "ONE_STATE_IMAGE"
    in_float32 = cuda._ss2d_family(DEVICE, torch.float32, 96, 1, R).name
    assert in_float32 == ("ONE_STATE_IMAGE" if R <= 24 else "ONE_STATE")


def test_sizes_without_kernels_are_padded_to_those_with(
    gpu: Callable[[int, int, int], None],
) -> None:
    gpu(9, 0, 227)
    padded = {
        (N, R): cuda.ss2d_sizes(DEVICE, torch.float16, 96, N, R)
        for N, R in ((1, 3), (1, 7), (1, 12), (16, 3), (2, 6), (12, 7), (16, 6), (1, 49), (65, 2))
    }
    assert padded == {
        (1, 3): (1, 6), (1, 7): (1, 8), (1, 12): (1, 12), (16, 3): (16, 4),
        (2, 6): (4, 6), (12, 7): (16, 8),
        (16, 6): (16, 6), (1, 49): (1, 49), (65, 2): (65, 2),
    }  # fmt: skip
    assert cuda.ss2d_sizes(DEVICE, torch.float32, 96, 2, 3) == (4, 4)
    assert cuda.ss2d_sizes(DEVICE, torch.float32, 96, 1, 3) == (1, 6)
    assert cuda.ss2d_sizes(DEVICE, torch.float16, 90, 16, 3) == (16, 3)


@pytest.mark.parametrize(
    ("D", "warps"), [(24, 2), (48, 3), (96, 3), (192, 4), (384, 4), (1536, 4), (90, 0)]
)
def test_blocks_of_one_state_leave_few_warps_without_channels(
    gpu: Callable[[int, int, int], None], D: int, warps: int
) -> None:
    gpu(9, 0, 227)
    assert cuda._one_state_warps(DEVICE, torch.float16, D, 1) == warps


def test_code_of_an_older_gpu_gets_that_gpus_kernels(
    gpu: Callable[[int, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PTX of 7.5 holds no image kernels, whatever runs it; of a GPU without code it is said."""
    gpu(9, 0, 227)
    monkeypatch.setattr(cuda, "_built_for", lambda: ("7.5-virtual",))
    assert cuda._ss2d_family(DEVICE, torch.float16, 192, 16, 6).name == "STRIDED"
    monkeypatch.setattr(cuda, "_built_for", lambda: ("10.0",))
    cuda._code_for.cache_clear()
    reason = cuda.why_unsupported(DEVICE, torch.float16, 16)
    assert reason is not None
    assert "SWIN_UMAMBA_CUDA_ARCHS=9.0" in reason


def test_ptx_needs_a_driver_as_new_as_the_compiler(
    gpu: Callable[[int, int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(9, 0, 227)
    info = _extension.module().build_info() | {"cuda_version": "12.8", "min_driver": "12.4"}
    monkeypatch.setattr(_extension.module(), "build_info", lambda: info)
    monkeypatch.setattr(_extension.module().cuda, "driver_version", lambda: 12070)
    assert cuda.why_unsupported(DEVICE, torch.float16, 16) is None
    monkeypatch.setattr(cuda, "_built_for", lambda: ("8.0-virtual",))
    cuda._code_for.cache_clear()
    reason = cuda.why_unsupported(DEVICE, torch.float16, 16)
    assert reason is not None
    assert "supports CUDA 12.7" in reason
    assert "need a driver for CUDA 12.8" in reason
    assert reason.endswith("or install again with SWIN_UMAMBA_CUDA_ARCHS=9.0")
    monkeypatch.setattr(_extension.module().cuda, "driver_version", lambda: 12080)
    assert cuda.why_unsupported(DEVICE, torch.float16, 16) is None
