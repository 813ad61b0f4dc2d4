"""The decoder's blocks: joined in parts or whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from swin_umamba import create_model
from swin_umamba.models import blocks, fused


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


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_few_channels_are_padded_with_zeros(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = fused.PointwiseConv2d(channels, 6)
    x, dy = torch.randn(2, channels, 5, 7, requires_grad=True), torch.randn(2, 6, 5, 7)
    expected = layer(x)
    wanted = torch.autograd.grad(expected, (x, layer.weight), dy)
    seen: list[int] = []
    plain = fused.F.conv2d

    def spied(image: Tensor, *rest: Tensor) -> Tensor:
        seen.append(image.shape[1])
        return plain(image, *rest)

    dtype = torch.float32
    monkeypatch.setattr(fused, "_dtype_padded", lambda x: dtype if x.shape[1] < 8 else None)
    monkeypatch.setattr(fused.F, "conv2d", spied)
    out = layer(x)
    assert seen[0] == 8
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.autograd.grad(out, (x, layer.weight), dy), wanted)


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
