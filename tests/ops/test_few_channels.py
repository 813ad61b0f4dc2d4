"""3x3 convolutions of few channels: padded with zeros, which changes nothing but rounding."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from swin_umamba_ops.backends import triton_convolution as convolution


@pytest.mark.parametrize(("channels", "forward"), [(1, 1), (3, 3), (6, 8), (8, 8)])
def test_a_convolution_of_few_channels_is_padded_to_eight(
    channels: int, forward: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, channels, dtype=torch.bfloat16)
    weight = torch.randn(4, channels, 3, 3, dtype=torch.bfloat16)
    dy = torch.randn(2, 6, 5, 4, dtype=torch.bfloat16)
    seen: list[int] = []
    plain, gradients = convolution.F.conv2d, convolution._cudnn_gradients

    def spied(image: torch.Tensor, *rest: torch.Tensor, padding: int) -> torch.Tensor:
        seen.append(image.shape[1])
        return plain(image, *rest, padding=padding)

    def spied_gradients(
        dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *wanted: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(x.shape[3])
        return gradients(dy, x, weight, *wanted)

    monkeypatch.setattr(convolution.F, "conv2d", spied)
    monkeypatch.setattr(convolution, "_cudnn_gradients", spied_gradients)
    y = convolution._convolve(x, weight)
    dweight = convolution._weight_gradient(dy, x, weight)
    assert seen == [forward, 8]
    exact = weight.double().requires_grad_()
    expected = plain(x.double().permute(0, 3, 1, 2), exact, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(y.double(), expected.detach(), rtol=1e-2, atol=3e-2)
    (wanted,) = torch.autograd.grad(expected, exact, dy.double())
    assert dweight.shape == weight.shape
    torch.testing.assert_close(dweight.double(), wanted, rtol=1e-2, atol=1e-1)
