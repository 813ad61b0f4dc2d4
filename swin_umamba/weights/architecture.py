"""Determine the encoder of a state dict from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swin_umamba.common.encoders import ENCODERS, VMAMBA, VMAMBA_V2, EncoderSpec

ENCODER, STEM = "vssm_encoder.", "stem."
PATCHES = {
    VMAMBA: f"{ENCODER}patch_embed.proj.weight",
    VMAMBA_V2: f"{ENCODER}patch_embed.0.weight",
}
"""Name of the first convolution's weight, by block kind."""
STEM_PATCH = 2
"""Pixels of a stem's output per side of a patch, in models that have a stem."""
_NORM = re.compile(rf"^{re.escape(ENCODER)}layers\.(\d+)\.blocks\.(\d+)\.(ln_1|norm)\.weight$")
_SCANS = {VMAMBA: "self_attention", VMAMBA_V2: "op"}
_OTHER_SIZES: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    ((96, 192, 384, 768), (2, 2, 27, 2)): "VMamba-Small",
    ((128, 256, 512, 1024), (2, 2, 27, 2)): "VMamba-Base",
}
"""The first generation's name, for sizes passed to `create_model` explicitly."""


@dataclass(frozen=True)
class Architecture:
    """An encoder's architecture as determined from its tensors; field names as in `EncoderSpec`."""

    blocks: str
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    d_state: int
    expand: int

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Architecture:
        """From tensors under our names. Raises ValueError if some that determine it are missing."""
        found_blocks: dict[int, set[int]] = {}
        dims: dict[int, int] = {}
        kinds = set()
        for name, tensor in tensors.items():
            if (found := _NORM.match(name)) is not None and tensor.ndim == 1:
                stage, block = int(found[1]), int(found[2])
                found_blocks.setdefault(stage, set()).add(block)
                dims[stage] = tensor.shape[0]
                kinds.add(VMAMBA if found[3] == "ln_1" else VMAMBA_V2)
        if sorted(found_blocks) != list(range(len(found_blocks))) or len(found_blocks) < 2:
            raise ValueError(
                f"it has stages {sorted(found_blocks)}, expected two or more from 0 on"
            )
        if len(kinds) > 1:
            raise ValueError("its blocks are of VMamba's first and second generation, mixed")
        stages = range(len(found_blocks))
        for stage in stages:
            # Count the existing tensors, whatever numbers their names contain.
            if max(found_blocks[stage]) >= len(found_blocks[stage]):
                raise ValueError(
                    f"stage {stage} has {len(found_blocks[stage])} blocks, of which one is numbered"
                    f" {max(found_blocks[stage])}, expected 0 to {len(found_blocks[stage]) - 1}"
                )
        (kind,) = kinds
        scan = f"{ENCODER}layers.0.blocks.0.{_SCANS[kind]}."
        scanned = shape_of(tensors, f"{scan}out_proj.weight")[1]
        if kind == VMAMBA_V2 and scanned not in (dims[0], 2 * dims[0]):
            raise ValueError(
                f"its blocks of {dims[0]} channels scan {scanned}, expected as many or twice them"
            )
        return cls(
            kind,
            tuple(dims[i] for i in stages),
            tuple(len(found_blocks[i]) for i in stages),
            shape_of(tensors, f"{scan}A_logs")[1],
            1 if kind == VMAMBA_V2 and scanned == dims[0] else 2,
        )

    @property
    def encoder(self) -> str:
        """Its name in `create_model`, or that of the first encoder of its kind for other sizes."""
        alike = [
            name
            for name, spec in ENCODERS.items()
            if (spec.blocks, spec.expand) == (self.blocks, self.expand)
        ]
        sizes = (self.dims, self.depths)
        same = [name for name in alike if (ENCODERS[name].dims, ENCODERS[name].depths) == sizes]
        return (same or alike)[0]

    def options(self) -> dict[str, Any]:
        """The arguments of `create_model` for this encoder."""
        if self.blocks == VMAMBA:
            return self._words()
        return {"encoder": self.encoder, **self._words_unlike(ENCODERS[self.encoder])}

    def __str__(self) -> str:
        words = ", ".join(f"{name}={value}" for name, value in self._words().items())
        return f"{name}, {words}" if (name := self._name()) else words

    def instead_of(self, other: Architecture) -> str:
        """The arguments of `create_model` in which this one differs from another."""
        words: dict[str, Any] = {}
        base: Architecture | EncoderSpec = other
        if self.encoder != other.encoder:
            words["encoder"] = self.encoder
            base = ENCODERS[self.encoder]
        words |= self._words_unlike(base)
        return ", ".join(f"{name}={value!r}" for name, value in words.items())

    def _name(self) -> str:
        """A display name; empty for unpublished sizes."""
        sizes, spec = (self.dims, self.depths), ENCODERS[self.encoder]
        if sizes == (spec.dims, spec.depths):
            return "VMamba-Tiny" if self.blocks == VMAMBA else self.encoder
        if self.blocks == VMAMBA:
            return _OTHER_SIZES.get(sizes, "")
        return "VMamba's second generation"

    def _words(self) -> dict[str, Any]:
        return {"dims": self.dims, "depths": self.depths, "d_state": self.d_state}

    def _words_unlike(self, other: Architecture | EncoderSpec) -> dict[str, Any]:
        return {n: value for n, value in self._words().items() if value != getattr(other, n)}


def shape_of(tensors: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The shape of a tensor with at least two axes. Raises ValueError if it is missing."""
    if name not in tensors or tensors[name].ndim < 2:
        raise ValueError(f"it lacks {name}, or holds something else under that name")
    return tuple(tensors[name].shape)
