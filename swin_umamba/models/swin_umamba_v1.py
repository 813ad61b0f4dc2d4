"""The paper's first version of Swin-UMamba."""

from __future__ import annotations

from typing import Any

from torch import nn

from swin_umamba.common.encoders import DEFAULT_ENCODER
from swin_umamba.models.registry import register_model
from swin_umamba.models.swin_umamba import SwinUMamba


@register_model("swin_umamba_v1")
class SwinUMambaV1(SwinUMamba):
    """Swin-UMamba whose decoder starts one level higher: 40.43 M parameters.

    The encoder's last stage has weights, as in the original implementation, but its output is
    unused. It is neither run nor trained: its parameters never require gradients, so that they do
    not block distributed training. Its encoder is `vmamba_tiny`, or one of that kind in other
    sizes.
    """

    unused_stages = 1

    def __init__(
        self, in_channels: int, out_channels: int, *, encoder: str = DEFAULT_ENCODER, **kwargs: Any
    ) -> None:
        if encoder != DEFAULT_ENCODER:
            raise ValueError(
                f"encoder: got {encoder!r}, expected {DEFAULT_ENCODER!r} with swin_umamba_v1: the"
                " others go with swin_umamba and swin_umamba_d"
            )
        super().__init__(in_channels, out_channels, encoder=encoder, **kwargs)
        trained = {name for name, _ in self._encoder_parameters()}
        for name, parameter in self.vssm_encoder.named_parameters():
            parameter.requires_grad_(name in trained)

    def _encoder_parameters(self) -> list[tuple[str, nn.Parameter]]:
        unused = (f"layers.{self.used_stages}.", f"downsamples.{self.used_stages - 1}.")
        return [
            (name, parameter)
            for name, parameter in super()._encoder_parameters()
            if not name.startswith(unused)
        ]
