"""Sliding windows: equal to MONAI's for the whole image, in bands of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn

from swin_umamba.inference.windows import Windows, importance, logits_in_bands

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A network that sees its neighbors and counts its windows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(2, 3, 5, padding=2)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, windows: Tensor) -> Tensor:
        self.sizes.append(tuple(windows.shape))
        logits: Tensor = self.layer(windows)
        return logits


def _images(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.normal(size=(count, 2, height, width)).astype(np.float32)


@pytest.mark.slow
@settings(deadline=None, max_examples=80)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    patch=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    batch=st.integers(1, 9),
)
@torch.no_grad()
def test_bands_are_the_whole_image(
    sizes: tuple[int, int, int], patch: tuple[int, int], overlap: float, batch: int
) -> None:
    images, network = _images(*sizes), Counting()
    expected = sliding_window_inference(
        torch.from_numpy(images), patch, 4, network.layer, overlap=overlap, mode="gaussian"
    )
    rows, parts = 0, []
    for row, band in logits_in_bands(network, images, Windows(patch, overlap, batch), CPU):
        assert row == rows
        rows += band.shape[2]
        parts.append(band)
    torch.testing.assert_close(torch.cat(parts, 2), expected, rtol=1e-4, atol=1e-5)
    assert all(size[0] <= batch and size[2:] == patch for size in network.sizes)


@torch.no_grad()
def test_every_window_is_computed_once_and_bands_are_no_higher_than_a_batch_needs() -> None:
    network = Counting()
    windows = Windows((16, 16), 0.5, batch_size=4)
    bands = [b for _, b in logits_in_bands(network, _images(1, 512, 24), windows, CPU)]
    assert sum(size[0] for size in network.sizes) == 63 * 2
    # Two columns of windows: two rows of them make a batch.
    assert max(band.shape[2] for band in bands) == 16
    assert len(bands) == 32


@torch.no_grad()
def test_batches_of_a_row_are_of_nearly_equal_sizes() -> None:
    network = Counting()
    for _ in logits_in_bands(network, _images(1, 16, 8 * 10), Windows((16, 16), 0.5, 4), CPU):
        pass
    assert [size[0] for size in network.sizes] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": (0, 8)}, "patch_size"),
        ({"size": (8, 8), "overlap": 1.0}, "overlap"),
        ({"size": (8, 8), "batch_size": 0}, "batch_size"),
    ],
)
def test_windows_that_cannot_be_are_refused(options: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: got"):
        Windows(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (7, 16), (64, 40)], ids=str)
def test_windows_are_weighted_as_monais(size: tuple[int, int]) -> None:
    ours = importance(size, torch.device("cpu"))
    torch.testing.assert_close(ours, compute_importance_map(size, mode="gaussian"))
