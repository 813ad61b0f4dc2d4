"""Which encoder a state dict is of, by its tensors' names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENCODER, STEM = "vssm_encoder.", "stem."
PATCHES = f"{ENCODER}patch_embed.proj.weight"
STEM_PATCH = 2
"""Pixels of a stem's output per side of a patch, in models that have a stem."""
_NORM = re.compile(rf"^{re.escape(ENCODER)}layers\.(\d+)\.blocks\.(\d+)\.ln_1\.weight$")
_STATES = f"{ENCODER}layers.0.blocks.0.self_attention.A_logs"
_SIZES: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    ((96, 192, 384, 768), (2, 2, 9, 2)): "VMamba-Tiny",
    ((96, 192, 384, 768), (2, 2, 27, 2)): "VMamba-Small",
    ((128, 256, 512, 1024), (2, 2, 27, 2)): "VMamba-Base",
}


@dataclass(frozen=True)
class Architecture:
    """What of an encoder its tensors tell; the words are those of `create_model`."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    d_state: int

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Architecture:
        """That of tensors by our names. Raises ValueError where some that tell it are lacking."""
        blocks: dict[int, set[int]] = {}
        dims: dict[int, int] = {}
        for name, tensor in tensors.items():
            if (found := _NORM.match(name)) is not None and tensor.ndim == 1:
                stage, block = int(found[1]), int(found[2])
                blocks.setdefault(stage, set()).add(block)
                dims[stage] = tensor.shape[0]
        if sorted(blocks) != list(range(len(blocks))) or len(blocks) < 2:
            raise ValueError(f"it has stages {sorted(blocks)}, expected two or more from 0 on")
        stages = range(len(blocks))
        for stage in stages:
            # As many as there are tensors of, whatever numbers their names tell.
            if max(blocks[stage]) >= len(blocks[stage]):
                raise ValueError(
                    f"stage {stage} has {len(blocks[stage])} blocks, of which one is called"
                    f" {max(blocks[stage])}, expected 0 to {len(blocks[stage]) - 1}"
                )
        return cls(
            tuple(dims[i] for i in stages),
            tuple(len(blocks[i]) for i in stages),
            shape_of(tensors, _STATES)[1],
        )

    def __str__(self) -> str:
        known = _SIZES.get((self.dims, self.depths))
        return (f"{known}, " if known else "") + ", ".join(f"{n}={v}" for n, v in self._words())

    def instead_of(self, other: Architecture) -> str:
        """The arguments of `create_model` in which this one differs from another."""
        pairs = zip(self._words(), other._words(), strict=True)
        return ", ".join(f"{name}={mine}" for (name, mine), (_, theirs) in pairs if mine != theirs)

    def _words(self) -> list[tuple[str, Any]]:
        return [("dims", self.dims), ("depths", self.depths), ("d_state", self.d_state)]


def shape_of(tensors: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """The shape of what has two axes or more. Raises ValueError where it is lacking."""
    if name not in tensors or tensors[name].ndim < 2:
        raise ValueError(f"it lacks {name}, or holds something else under that name")
    return tuple(tensors[name].shape)
