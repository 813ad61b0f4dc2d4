"""The residual blocks of encoders and decoders, by the name of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from swin_umamba.common.encoders import BLOCKS, VMAMBA
from swin_umamba.models.layers import VSSBlock
from swin_umamba.models.vmamba_v2 import MlpVSSBlock

RESIDUAL_BLOCKS: tuple[type[nn.Module], ...] = (VSSBlock, MlpVSSBlock)
"""Blocks (B, H, W, dim) -> (B, H, W, dim): the units of recomputation and sharding."""


@dataclass(frozen=True)
class BlockKind:
    """How to build blocks; field names as in `EncoderSpec`. backend: of their scans."""

    blocks: str
    d_state: int
    expand: int
    backend: str

    def __post_init__(self) -> None:
        if self.blocks not in BLOCKS:
            raise ValueError(
                f"decoder_blocks: got {self.blocks!r}, expected one of {', '.join(BLOCKS)}"
            )

    def row(self, dim: int, drop_rates: Sequence[float]) -> list[nn.Module]:
        """One block of width dim per drop rate."""
        return [self._build(dim, rate) for rate in drop_rates]

    def _build(self, dim: int, rate: float) -> nn.Module:
        if self.blocks == VMAMBA:
            return VSSBlock(dim, rate, self.d_state, self.backend)
        return MlpVSSBlock(dim, rate, self.d_state, self.expand, self.backend)
