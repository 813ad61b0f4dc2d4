"""The decoder's blocks: joined in parts or whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swin_umamba import create_model
from swin_umamba.models import blocks


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images in each part."""
    seen: list[int] = []
    join = blocks.UpBlock._join

    def spy(self: blocks.UpBlock, x: Tensor, skip: Tensor) -> Tensor:
        seen.append(len(x))
        return join(self, x, skip)

    monkeypatch.setattr(blocks.UpBlock, "_join", spy)
    return seen


@pytest.mark.parametrize(("images", "parts"), [(1, [1]), (3, [1, 1, 1]), (9, [3, 3, 3])])
def test_large_maps_are_joined_in_parts_where_nothing_is_kept(
    images: int, parts: list[int], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = blocks.UpBlock(6, 4)
    x, skip = torch.randn(images, 6, 5, 7), torch.randn(images, 4, 10, 14)
    skip = skip.contiguous(memory_format=torch.channels_last)
    whole = block(x, skip)
    assert sizes == [images]
    monkeypatch.setattr(blocks, "_MANY", skip.numel() - 1)
    kept = block(x, skip)
    assert torch.equal(kept, whole)
    assert sizes == [images, images]
    with torch.no_grad():
        joined = block(x, skip)
    assert sizes[2:] == parts
    assert joined.stride() == whole.stride()
    torch.testing.assert_close(joined, whole.detach())


@pytest.mark.gpu
def test_inference_holds_few_maps_of_the_image() -> None:
    """Beyond weights and input, in maps of the finest level."""
    model = create_model("swin_umamba", in_channels=1, out_channels=2).cuda().eval()
    x = torch.randn(30, 1, 320, 320, device="cuda")
    one_map = x.numel() * 48 * 2
    with torch.no_grad(), torch.autocast("cuda", torch.float16):
        model(x)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(x)
    assert torch.cuda.max_memory_allocated() - before < 5.3 * one_map
