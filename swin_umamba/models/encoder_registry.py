"""Encoders by name, stand-alone or as part of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from swin_umamba.common.checks import check_positive
from swin_umamba.common.encoders import VMAMBA, encoder_spec
from swin_umamba.models.block_kinds import BlockKind
from swin_umamba.models.encoders import ConvVSSMEncoder, Encoder, VSSMEncoder
from swin_umamba.models.fused import use_backend
from swin_umamba.weights.load import load_pretrained_encoder

CONV_PATCH = 4
"""Side of the patches of the second generation's embedding, in pixels."""


@dataclass(frozen=True)
class EncoderPlan:
    """An encoder by name, with the caller's changes applied.

    name, dims, depths: see `create_encoder`. kind: of its blocks.
    """

    name: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    kind: BlockKind

    @property
    def embeds_by_convolutions(self) -> bool:
        """Whether it is of the second generation, whose patch embedding starts with a stem."""
        return self.kind.blocks != VMAMBA

    def build(self, in_channels: int, *, patch_size: int, drop_path_rate: float) -> Encoder:
        check_positive(in_channels=in_channels, patch_size=patch_size)
        sizes = {"dims": self.dims, "depths": self.depths}
        if not self.embeds_by_convolutions:
            return VSSMEncoder(
                in_channels,
                patch_size=patch_size,
                kind=self.kind,
                drop_path_rate=drop_path_rate,
                **sizes,
            )
        if patch_size != CONV_PATCH:
            raise ValueError(
                f"patch_size: got {patch_size}, expected {CONV_PATCH} with encoder {self.name!r}"
            )
        return ConvVSSMEncoder(in_channels, kind=self.kind, drop_path_rate=drop_path_rate, **sizes)

    def blocks(self, name: str | None, d_state: int | None) -> BlockKind:
        """Blocks for a decoder to go with the encoder: of the same kind by default."""
        if name is None or name == self.kind.blocks:
            return self.kind
        expand, states = (2, 16) if name == VMAMBA else (1, 1)
        return replace(self.kind, blocks=name, expand=expand, d_state=d_state or states)


def plan_encoder(
    name: str,
    *,
    dims: Sequence[int] | None,
    depths: Sequence[int] | None,
    d_state: int | None,
    backend: str,
) -> EncoderPlan:
    """The encoder with that name; arguments that are not None override its published sizes.

    Raises ValueError, naming the argument, for unknown names and invalid sizes.
    """
    spec = encoder_spec(name)
    sizes = check_stages(
        spec.dims if dims is None else dims, spec.depths if depths is None else depths
    )
    states = spec.d_state if d_state is None else d_state
    check_positive(d_state=states)
    return EncoderPlan(name, *sizes, BlockKind(spec.blocks, states, spec.expand, backend))


def create_encoder(
    name: str,
    in_channels: int = 3,
    pretrained: str | os.PathLike[str] | None = None,
    *,
    dims: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    d_state: int | None = None,
    drop_path_rate: float = 0.2,
    backend: str = "auto",
) -> Encoder:
    """A stand-alone encoder, for any decoder: see `encoder_names()`.

    For an image (B, in_channels, H, W) it returns one map (B, channels[i], H / reductions[i], W /
    reductions[i]) per stage, finest first: four of them, at 1/4 to 1/32, with the published sizes.
    `vmamba_tiny` needs H and W to be multiples of `stride`; for the others, map sizes are rounded
    up.

    pretrained: VMamba's checkpoint, a file of `swin-umamba convert`, or a whole model, whose
    encoder is used; every tensor must match, except that the first convolution is adapted to other
    numbers of image channels. dims, depths: width and number of blocks per stage. d_state: states
    per channel of the scan. drop_path_rate: drop rate of the last block. backend: as in
    `swin_umamba_ops.ss2d`.

    Raises ValueError for an unknown name, and for weights of another encoder, which it names.
    """
    plan = plan_encoder(name, dims=dims, depths=depths, d_state=d_state, backend=backend)
    encoder = plan.build(in_channels, patch_size=CONV_PATCH, drop_path_rate=drop_path_rate)
    use_backend(encoder, backend)
    if pretrained is not None:
        encoder.pretrained_report = load_pretrained_encoder(encoder, pretrained)
    return encoder


def check_stages(
    dims: Sequence[int], depths: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Check that dims and depths are equally long tuples of at least two positive numbers."""
    for name, values in (("dims", dims), ("depths", depths)):
        if len(values) < 2 or min(values) < 1:
            raise ValueError(f"{name}: got {tuple(values)}, expected two or more numbers above 0")
    if len(dims) != len(depths):
        raise ValueError(f"depths: got {len(depths)} stages, expected {len(dims)} as in dims")
    return tuple(dims), tuple(depths)
