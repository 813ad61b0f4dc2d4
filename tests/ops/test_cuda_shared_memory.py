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
        monkeypatch.setattr(module.cuda, "most_shared_bytes", lambda _: 1024 * kilobytes)

    kept = (why_too_large, cuda._sequence_kernels_serve)
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
    assert cuda._image_kernels_serve(DEVICE, torch.float16, 192, 16, R)
    assert cuda.why_unsupported(DEVICE, torch.float16, 16) is None


def test_others_go_to_the_general_kernels_where_they_are_too_large(
    gpu: Callable[[int, int, int], None],
) -> None:
    gpu(9, 0, 227)
    assert cuda._image_kernels_serve(DEVICE, torch.float16, 192, 8, 6)
    assert cuda._sequence_kernels_serve(DEVICE, torch.float32, 16, 64)
    for function in (why_too_large, cuda._sequence_kernels_serve):
        function.cache_clear()
    gpu(8, 6, 99)
    assert not cuda._image_kernels_serve(DEVICE, torch.float16, 192, 8, 6)
    assert not cuda._sequence_kernels_serve(DEVICE, torch.float32, 16, 64)
    assert cuda._sequence_kernels_serve(DEVICE, torch.float16, 16, 64)
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
