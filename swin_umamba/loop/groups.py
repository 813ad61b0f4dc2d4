"""Parameter groups, each with one learning rate and one weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

SCALE = "lr_scale"
"""Key of a group's learning rate factor; 1 if missing."""
ENCODER = "vssm_encoder."
_BEFORE = (ENCODER, "stem.")
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_DOWNSAMPLE = re.compile(r"(?:layers\.(\d+)\.downsample|downsamples\.(\d+))\.")
_STATES = ("A_logs", "Ds")

Named = tuple[str, nn.Parameter]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is customary: not for norms, biases, and the scans' own parameters."""
    return parameter.ndim > 1 and not name.endswith((*_STATES, "dt_projs_bias", "token"))


def encoder_depths(named: Iterable[Named]) -> dict[str, int]:
    """Depth of each parameter of stem and encoder: 0 for stem and patch embedding.

    Blocks are counted from 1. Downsampling layers count with the next block, and whatever follows
    the last block counts with it.
    """
    names = [name for name, _ in named if name.startswith(_BEFORE)]
    blocks = sorted({(int(m[1]), int(m[2])) for name in names if (m := _BLOCK.search(name))})
    depth = {block: i for i, block in enumerate(blocks, start=1)}
    found = {}
    for name in names:
        if (match := _BLOCK.search(name)) is not None:
            found[name] = depth[int(match[1]), int(match[2])]
        elif (match := _DOWNSAMPLE.search(name)) is not None:
            found[name] = depth[int(match[1] or match[2]) + 1, 0]
        elif ".patch_embed." in name or name.startswith("stem."):
            found[name] = 0
        else:
            found[name] = len(blocks)
    return found


def parameter_groups(
    named: Iterable[Named],
    *,
    weight_decay: float,
    decay_all: bool,
    encoder_scale: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, in the order of their first parameters.

    decay_all: also decay norms, biases and states. encoder_scale: factor of the rate of stem and
    encoder. layer_decay: factor from each of their layers to the one before it (BEiT,
    arXiv:2106.08254); the last block gets it once, whereas everything after the encoder gets none.
    A single group without a factor if all parameters are treated alike.
    """
    pairs = list(named)
    depths = encoder_depths(pairs)
    top = max(depths.values(), default=0) + 1
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in pairs:
        scale = 1.0
        if name in depths:
            scale = encoder_scale * layer_decay ** (top - depths[name])
        decay = weight_decay if decay_all or is_decayed(name, parameter) else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    if len(groups) == 1 and (1.0, weight_decay) in groups:
        return [{"params": [parameter for _, parameter in pairs]}]
    return [
        {"params": parameters, SCALE: scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def set_rate(groups: Iterable[dict[str, Any]], lr: float) -> None:
    """Set the learning rate of every group, times its factor."""
    for group in groups:
        group["lr"] = lr * group.get(SCALE, 1.0)
