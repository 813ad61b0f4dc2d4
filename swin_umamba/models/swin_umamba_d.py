"""Swin-UMamba†: VMamba encoder, Mamba decoder (arXiv:2402.03302)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from swin_umamba.common.encoders import DEFAULT_ENCODER
from swin_umamba.models.base import SegmentationModel
from swin_umamba.models.decoders import MambaDecoder
from swin_umamba.models.encoder_registry import plan_encoder
from swin_umamba.models.fused import use_backend
from swin_umamba.models.registry import register_model


@register_model("swin_umamba_d")
class SwinUMambaD(SegmentationModel):
    """Swin-UMamba† as in the original implementation: 27.50 M parameters at 1 input and 14 output
    channels.

    encoder: see `encoder_names()`. decoder_blocks: "vmamba" or "vmamba_v2", the blocks of VMamba's
    first or second generation; by default the encoder's.

    dims, depths: width and number of blocks of each encoder stage; by default the encoder's.
    decoder_depths: number of blocks of each decoder stage, coarsest first; 2 each by default.
    patch_size: input pixels per pixel of the finest feature map, always 4 with an encoder of the
    second generation. d_state: states per channel of all scans; by default those of the blocks.
    drop_path_rate: drop rate of the encoder's last block and the decoder's first; it falls to 0
    toward image and logits. backend: as in `swin_umamba_ops.ss2d`; fused ops around the scans use
    it too if it has them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        encoder: str = DEFAULT_ENCODER,
        decoder_blocks: str | None = None,
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        decoder_depths: Sequence[int] | None = None,
        patch_size: int = 4,
        d_state: int | None = None,
        drop_path_rate: float = 0.2,
        backend: str = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, deep_supervision)
        plan = plan_encoder(encoder, dims=dims, depths=depths, d_state=d_state, backend=backend)
        if decoder_depths is None:
            decoder_depths = (2,) * (len(plan.dims) - 1)
        if len(decoder_depths) != len(plan.dims) - 1 or min(decoder_depths) < 1:
            raise ValueError(
                f"decoder_depths: got {tuple(decoder_depths)}, expected {len(plan.dims) - 1}"
                " numbers above 0, one less than dims"
            )
        self.vssm_encoder = plan.build(
            in_channels, patch_size=patch_size, drop_path_rate=drop_path_rate
        )
        self.decoder = MambaDecoder(
            out_channels,
            patch_size=patch_size,
            dims=plan.dims,
            depths=tuple(decoder_depths),
            kind=plan.blocks(decoder_blocks, d_state),
            drop_path_rate=drop_path_rate,
        )
        self.stride = self.vssm_encoder.stride
        self.scales = (1, *(patch_size * 2**i for i in range(len(plan.dims) - 1)))
        first = self.vssm_encoder.first_convolution
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_he(module, bias=module is not first)
        use_backend(self, backend)

    def logits(self, x: Tensor) -> list[Tensor]:
        out: list[Tensor] = self.decoder(self.vssm_encoder(x), all_scales=self.deep_supervision)
        return out

    def stages(self) -> dict[str, list[nn.Module]]:
        parts = self._encoder_parts()
        decoder = self.decoder
        *stages, last = zip(decoder.expand_layers, reversed(self.scales), strict=True)
        for i, (expand, scale) in enumerate(stages):
            parts[f"decoder at 1/{scale}"] = [expand, decoder.concat_back_dim[i], decoder.stages[i]]
        parts["decoder at 1/1"] = [last[0]]
        parts["heads"] = [decoder.seg_layers]
        return parts


def _init_he(module: nn.Conv2d, bias: bool) -> None:
    """nnU-Net's initialization, which the original implementation applies to every convolution
    here.

    It zeroes biases, and then zeros in an image (such as padding) stay 0 in all channels from norm
    to norm: each norm multiplies the gradient by 1 / sqrt(eps), and together they exceed float32's
    range. The first layer's bias, which alone can prevent that, keeps PyTorch's initialization.
    """
    nn.init.kaiming_normal_(module.weight, a=0.01)
    if bias and module.bias is not None:
        nn.init.zeros_(module.bias)
