"""What all models share: checks, padding, deep supervision, freezing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import index
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_umamba.common.checks import check_positive
from swin_umamba.models.encoders import Encoder
from swin_umamba.models.hub import HubModel

if TYPE_CHECKING:
    from swin_umamba.weights.report import Report


class SegmentationModel(nn.Module, HubModel, ABC):
    """Segment an image of any height and width.

    x: (B, in_channels, H, W), floating point. With deep_supervision the result is a list of
    logits, finest first: entry i is (B, out_channels, ceil(H / s), ceil(W / s)), s = scales[i].
    Without, it is the first of them alone. H and W are padded with zeros at the bottom and the
    right to multiples of `stride`, and the logits cropped.
    """

    scales: tuple[int, ...]
    """Input pixels per pixel of each scale's logits."""
    stride: int
    """Input pixels per pixel of the coarsest feature map."""
    vssm_encoder: Encoder

    def __init__(self, in_channels: int, out_channels: int, deep_supervision: bool) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.deep_supervision = deep_supervision
        # What `create_model` was called with; saved beside the weights.
        self.config = None
        # What became of the weights that `create_model` started it from, if any.
        self.pretrained_report: Report | None = None

    @abstractmethod
    def logits(self, x: Tensor) -> list[Tensor]:
        """Logits, finest first, of an image whose H and W are multiples of `stride`.

        All scales with deep_supervision, the finest alone without.
        """

    @abstractmethod
    def stages(self) -> dict[str, list[nn.Module]]:
        """The model's parts in the order they run, under the names a summary shows.

        Every parameter belongs to exactly one.
        """

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        self._check(x)
        height, width = known_size(x)
        bottom, right = -height % self.stride, -width % self.stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        if self.in_channels == 1:
            # Its layout is open, and convolutions would take it for channels first.
            x = x.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2)
        logits = self.logits(x)
        if bottom or right:
            logits = [
                out[..., : -(-height // scale), : -(-width // scale)]
                for out, scale in zip(logits, self.scales, strict=False)
            ]
        return logits if self.deep_supervision else logits[0]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels or 0 in x.shape[2:]:
            raise ValueError(
                f"x: got shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W)"
                " with H and W at least 1"
            )
        if not x.is_floating_point():
            raise TypeError(f"x: got {x.dtype}, expected floating point")

    def freeze_encoder(self) -> None:
        """Keep the encoder's weights from training, but for its patch embedding's.

        The patch embedding is what pretraining on other channel counts cannot provide.
        """
        for name, parameter in self._encoder_parameters():
            parameter.requires_grad_(name.startswith("patch_embed."))

    def unfreeze_encoder(self) -> None:
        """Undo `freeze_encoder`."""
        for _, parameter in self._encoder_parameters():
            parameter.requires_grad_(True)

    def _encoder_parts(self) -> dict[str, list[nn.Module]]:
        """The encoder's share of `stages`."""
        encoder = self.vssm_encoder
        parts: dict[str, list[nn.Module]] = {"patch embedding": [encoder.patch_embed]}
        for i in range(len(encoder.layers)):
            scale = self.stride >> (len(encoder.layers) - 1 - i)
            parts[f"encoder at 1/{scale}"] = encoder.parts(i)
        return parts

    def _encoder_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The encoder's parameters that can train, under the encoder's own names for them."""
        return list(self.vssm_encoder.named_parameters())


def known_size(x: Tensor) -> tuple[int, int]:
    """Height and width of an image (..., H, W), as numbers under torch.compile, too.

    Inductor orders memory by strides, and fails on those of symbolic H and W that are sums, as the
    padded sizes are. So each size is compiled for itself; torch.export keeps symbols.
    """
    height, width = x.shape[-2:]
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return index(height), index(width)
    return height, width
