"""The published encoders: names and sizes, without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ENCODER = "vmamba_tiny"
VMAMBA, VMAMBA_V2 = "vmamba", "vmamba_v2"
BLOCKS = (VMAMBA, VMAMBA_V2)
"""The block types of VMamba's first and second generation."""


@dataclass(frozen=True)
class EncoderSpec:
    """The architecture of an encoder.

    blocks: one of BLOCKS. dims, depths: width and number of blocks of each stage. d_state: N,
    states per channel of the scan. expand: scanned channels per channel of the block.
    """

    blocks: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    d_state: int
    expand: int


_TINY = (96, 192, 384, 768)
_BASE = (128, 256, 512, 1024)
ENCODERS = {
    DEFAULT_ENCODER: EncoderSpec(VMAMBA, _TINY, (2, 2, 9, 2), 16, 2),
    "vmamba_v2_tiny_s1l8": EncoderSpec(VMAMBA_V2, _TINY, (2, 2, 8, 2), 1, 1),
    "vmamba_v2_tiny_s2l5": EncoderSpec(VMAMBA_V2, _TINY, (2, 2, 5, 2), 1, 2),
    "vmamba_v2_small_s1l20": EncoderSpec(VMAMBA_V2, _TINY, (2, 2, 20, 2), 1, 1),
    "vmamba_v2_small_s2l15": EncoderSpec(VMAMBA_V2, _TINY, (2, 2, 15, 2), 1, 2),
    "vmamba_v2_base_s1l20": EncoderSpec(VMAMBA_V2, _BASE, (2, 2, 20, 2), 1, 1),
    "vmamba_v2_base_s2l15": EncoderSpec(VMAMBA_V2, _BASE, (2, 2, 15, 2), 1, 2),
}


def encoder_names() -> list[str]:
    """Names that `create_encoder` and `create_model` accept."""
    return list(ENCODERS)


def encoder_spec(name: str) -> EncoderSpec:
    """The spec of the encoder with that name. Raises ValueError that lists the valid names."""
    if not isinstance(name, str) or name not in ENCODERS:
        raise ValueError(f"encoder: got {name!r}, expected one of {', '.join(ENCODERS)}")
    return ENCODERS[name]


def network_name(model: str, encoder: str | None) -> str:
    """Display name of a model and, unless it is the default, its encoder."""
    return model if encoder in (None, DEFAULT_ENCODER) else f"{model} with {encoder}"
