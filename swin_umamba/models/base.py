"""Shared by all models: checks, padding, deep supervision, freezing."""

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

    x: (B, in_channels, H, W), floating point. With deep_supervision the result is a list of logits,
    finest first: entry i is (B, out_channels, ceil(H / s), ceil(W / s)), s = scales[i]. Otherwise
    it is the first of them. H and W are zero-padded at the bottom and right to multiples of
    `stride`, and the logits cropped.
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
        # The arguments of `create_model`; saved with the weights.
        self.config = None
        # Report about the weights that `create_model` loaded, if any.
        self.pretrained_report: Report | None = None

    @abstractmethod
    def logits(self, x: Tensor) -> list[Tensor]:
        """Logits, finest first, for an image whose H and W are multiples of `stride`.

        All scales with deep_supervision, otherwise only the finest.
        """

    @abstractmethod
    def stages(self) -> dict[str, list[nn.Module]]:
        """The model's parts in execution order, by the names shown in a summary.

        Every parameter belongs to exactly one part.
        """

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        self._check(x)
        height, width = known_size(x)
        bottom, right = -height % self.stride, -width % self.stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        if self.in_channels == 1:
            # With one channel the layout is ambiguous, and convolutions would assume channels
            # first.
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
        """Freeze the encoder except its patch embedding.

        The patch embedding cannot come from pretraining with another number of channels.
        """
        for name, parameter in self._encoder_parameters():
            parameter.requires_grad_(name.startswith("patch_embed."))

    def unfreeze_encoder(self) -> None:
        """Undo `freeze_encoder`."""
        for _, parameter in self._encoder_parameters():
            parameter.requires_grad_(True)

    def _encoder_parts(self) -> dict[str, list[nn.Module]]:
        """The encoder's part of `stages`."""
        encoder = self.vssm_encoder
        parts: dict[str, list[nn.Module]] = {"patch embedding": [encoder.patch_embed]}
        for i in range(len(encoder.layers)):
            scale = self.stride >> (len(encoder.layers) - 1 - i)
            parts[f"encoder at 1/{scale}"] = encoder.parts(i)
        return parts

    def _encoder_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The encoder's trainable parameters, by their names within the encoder."""
        return list(self.vssm_encoder.named_parameters())


def known_size(x: Tensor) -> tuple[int, int]:
    """Height and width of an image (..., H, W), as numbers even under torch.compile.

    Inductor orders memory by strides, and fails for strides with symbolic H and W that are sums, as
    padded sizes are. So each size is compiled separately; torch.export keeps symbols.
    """
    height, width = x.shape[-2:]
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return index(height), index(width)
    return height, width
