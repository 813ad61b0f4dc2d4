"""Swin-UMamba: VMamba encoder, convolutional U-Net decoder (arXiv:2402.03302)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from swin_umamba.common.checks import check_positive
from swin_umamba.common.encoders import DEFAULT_ENCODER
from swin_umamba.models.base import SegmentationModel
from swin_umamba.models.blocks import Head, InstanceNorm, SkipBlock, UpBlock
from swin_umamba.models.encoder_registry import CONV_PATCH, plan_encoder
from swin_umamba.models.fused import use_backend
from swin_umamba.models.registry import register_model


@register_model("swin_umamba")
class SwinUMamba(SegmentationModel):
    """Swin-UMamba as in the original implementation: 59.89 M parameters at 1 input and 14 output
    channels.

    Level i is the feature map at scale 1 / 2**i: the image, the stem's output, then the encoder's
    stages. A residual block turns each level into a skip connection, and the decoder goes from the
    coarsest level back to the image, one skip at a time.

    encoder: see `encoder_names()`. Encoders of VMamba's second generation need no stem: their own
    pretrained patch embedding produces the map at half the image's size as an intermediate result.

    dims, depths: width and number of blocks of each encoder stage; by default the encoder's.
    stem_dim: width of the stem and of the finest decoder level, dims[0] // 2 by default, and always
    that with an encoder of the second generation. d_state: states per channel of the scan; by
    default the encoder's. drop_path_rate: drop rate of the encoder's last block. backend: as in
    `swin_umamba_ops.ss2d`; fused ops around the scans use it too if it has them.
    """

    unused_stages = 0
    """Number of encoder stages, counted from the last, that exist but are unused."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        deep_supervision: bool = True,
        encoder: str = DEFAULT_ENCODER,
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        stem_dim: int | None = None,
        d_state: int | None = None,
        drop_path_rate: float = 0.2,
        backend: str = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, deep_supervision)
        plan = plan_encoder(encoder, dims=dims, depths=depths, d_state=d_state, backend=backend)
        half = max(plan.dims[0] // 2, 1)
        if stem_dim is None:
            stem_dim = half
        check_positive(stem_dim=stem_dim)
        widths = (stem_dim, *plan.dims)
        self.stem: nn.Module | None = None
        if plan.embeds_by_convolutions:
            if stem_dim != half:
                raise ValueError(
                    f"stem_dim: got {stem_dim}, expected {half}, half of dims[0], with encoder"
                    f" {encoder!r}, whose patch embedding is the stem"
                )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, stem_dim, kernel_size=7, stride=2, padding=3),
                InstanceNorm(stem_dim, affine=True),
            )
        self.vssm_encoder = plan.build(
            in_channels if self.stem is None else stem_dim,
            patch_size=CONV_PATCH if self.stem is None else CONV_PATCH // 2,
            drop_path_rate=drop_path_rate,
        )
        self.used_stages = len(plan.dims) - self.unused_stages
        self.stride = self.vssm_encoder.stride * (1 if self.stem is None else 2)

        # The original implementation's names: encoder<i+1> makes the skip of level i, decoder<i+2>
        # upsamples to level i, decoder1 refines level 0. A skip is as wide as the level below it,
        # so every level has its own entry in widths, and the last encoder stage shares the last
        # one.
        for i, source in enumerate((in_channels, *widths[:-1])):
            # Image-sized maps from few channels: cheap to recompute, and a tenth of the memory.
            skip = SkipBlock(source, widths[i], recompute=i == 0)
            self.add_module(f"encoder{i + 1}", skip)
        for i in reversed(range(self.used_stages + 1)):
            below = widths[min(i + 1, len(plan.dims))]
            self.add_module(f"decoder{i + 2}", UpBlock(below, widths[i]))
        self.decoder1 = SkipBlock(widths[0], widths[0])
        self.out_layers = nn.ModuleList(Head(width, out_channels) for width in widths[:-1])
        self.scales = tuple(2**i for i in range(len(self.out_layers)))
        use_backend(self, backend)

    def logits(self, x: Tensor) -> list[Tensor]:
        if self.stem is None:
            levels = [x, *self.vssm_encoder(x, self.used_stages, halfway=True)]
        else:
            stem = self.stem(x)
            levels = [x, stem, *self.vssm_encoder(stem, self.used_stages)]
        for i, block in enumerate(self._skip_blocks()):
            levels[i] = block(levels[i])
        x = levels.pop()
        decoded = []
        for block in self._up_blocks():
            x = block(x, levels.pop())
            decoded.append(x)
        decoded[-1] = self.decoder1(x)
        heads = self.out_layers if self.deep_supervision else self.out_layers[:1]
        return [head(features) for head, features in zip(heads, reversed(decoded), strict=False)]

    def stages(self) -> dict[str, list[nn.Module]]:
        parts: dict[str, list[nn.Module]] = {} if self.stem is None else {"stem": [self.stem]}
        parts |= self._encoder_parts()
        for i, block in enumerate(self._skip_blocks()):
            parts[f"skip at 1/{2**i}"] = [block]
        for i, block in zip(reversed(range(self.used_stages + 1)), self._up_blocks(), strict=True):
            parts[f"decoder at 1/{2**i}"] = [block]
        parts["decoder at 1/1"].append(self.decoder1)
        parts["heads"] = [self.out_layers]
        return parts

    def _skip_blocks(self) -> list[nn.Module]:
        """From level 0, the image, to coarser levels."""
        return [self.get_submodule(f"encoder{i + 1}") for i in range(len(self.out_layers) + 1)]

    def _up_blocks(self) -> list[nn.Module]:
        """From the coarsest level to finer ones."""
        return [
            self.get_submodule(f"decoder{i + 2}") for i in reversed(range(self.used_stages + 1))
        ]
