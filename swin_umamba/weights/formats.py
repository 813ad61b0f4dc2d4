"""Recognising a checkpoint by what it holds, and bringing its names into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from swin_umamba.weights.architecture import ENCODER, STEM

VMAMBA = "VMamba's encoder"
SELF = "Swin-UMamba weights"
RELEASE = "nnU-Net checkpoint"
FITS = (
    "what fits: VMamba's first ImageNet checkpoints, checkpoints of Swin-UMamba's release, and "
    "files of swin-umamba"
)
_WRAPPERS = ("network_weights", "model", "model_ema", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 6

# VMamba's later names, and the place of its downsampling, in the order they are tried.
_RENAMES = (
    (re.compile(r"^patch_embed\.0\."), "patch_embed.proj."),
    (re.compile(r"^patch_embed\.2\."), "patch_embed.norm."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.norm\."), r"\1.ln_1."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.op\."), r"\1.self_attention."),
    (re.compile(r"^layers\.(\d+)\.downsample\."), r"downsamples.\1."),
)
_HEAD = re.compile(r"^(norm|head|classifier)\.")
_BLOCK = re.compile(r"^layers\.\d+\.blocks\.\d+\.(ln_1|norm|self_attention|op)\.")


@dataclass(frozen=True)
class Checkpoint:
    """A recognised checkpoint.

    kind: a word for people. whole: it holds a whole model, not an encoder alone. tensors: by our
    names. sources: the file's name of each of ours. skipped: names in the file of what has no
    place in any of our models, and why. left_out: our names of what a conversion was told to leave
    out of the file.
    """

    kind: str
    whole: bool
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    skipped: dict[str, str]
    shapes: dict[str, tuple[int, ...]]  # of what is skipped
    left_out: frozenset[str] = field(default_factory=frozenset)


def recognise(content: Any, *, ema: bool = False, encoder_only: bool = False) -> Checkpoint:
    """What `content`, as `read_checkpoint` returns it, holds. ema: VMamba's averaged weights.

    encoder_only: of a whole model, too, the rest is skipped.

    Raises ValueError for other models' checkpoints, with the reason and what would fit.
    """
    raw, wrapper = _unwrap(content, ema)
    names = {name: _without_prefixes(name) for name in raw}
    if len(set(names.values())) < len(names):
        raise ValueError("several of its tensors have one name once module. and _orig_mod. are off")
    if any(name.startswith(ENCODER) for name in names.values()):
        kind = f"{RELEASE} of Swin-UMamba" if wrapper == "network_weights" else SELF
        sources = {ours: name for name, ours in names.items()}
        rest = [n for n in sources if not n.startswith(ENCODER)]
        skipped, shapes = {}, {}
        if encoder_only:
            for ours in rest:
                source = sources.pop(ours)
                skipped[source] = "only the encoder was asked for"
                shapes[source] = tuple(raw[source].shape)
        tensors = {ours: raw[n] for ours, n in sources.items()}
        # What pretraining leaves holds the stem besides, where the model has one.
        whole = not encoder_only and any(not name.startswith(STEM) for name in rest)
        return Checkpoint(kind, whole, tensors, sources, skipped, shapes)
    _refuse_others(names.values(), raw)
    tensors, sources, skipped, shapes = {}, {}, {}, {}
    for name, plain in names.items():
        if _HEAD.match(plain):
            skipped[name] = "the classifier has no place in a segmentation model"
            shapes[name] = tuple(raw[name].shape)
            continue
        for pattern, ours in _RENAMES:
            plain = pattern.sub(ours, plain)
        tensors[ENCODER + plain], sources[ENCODER + plain] = raw[name], name
    return Checkpoint(VMAMBA, False, tensors, sources, skipped, shapes)


def _unwrap(content: Any, ema: bool) -> tuple[dict[str, Tensor], str]:
    """The state dict, and the key under which it lay ("" if none)."""
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, expected tensors by name; {FITS}")
    order = ("model_ema",) if ema else _WRAPPERS
    for key in order:
        inner = content.get(key)
        if isinstance(inner, Mapping) and _tensors(inner):
            return _tensors(inner), key
    if ema:
        raise ValueError("it holds no averaged weights (model_ema)")
    tensors = _tensors(content)
    if not tensors:
        raise ValueError(f"it holds no tensors by name, only {_listed(content)}; {FITS}")
    return tensors, ""


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {n: t for n, t in values.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _without_prefixes(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _refuse_others(names: Any, raw: Mapping[str, Tensor]) -> None:
    names = list(names)
    if not any(_BLOCK.match(name) for name in names):
        raise ValueError(f"it is of another model, with tensors such as {_listed(names)}; {FITS}")
    reasons = []
    if any(".mlp." in name for name in names):
        reasons.append("its blocks have MLP branches")
    if any(name.startswith(("patch_embed.5.", "patch_embed.7.")) for name in names):
        reasons.append("its patch embedding has two convolutions")
    if any(re.match(r"layers\.\d+\.downsample\.\d", name) for name in names):
        reasons.append("it downsamples by convolutions")
    reasons += _shapes_of_later(raw)
    if reasons:
        raise ValueError(
            f"it is of a later VMamba (v2): {', '.join(reasons)}, which Swin-UMamba's encoder has "
            f"not; {FITS}"
        )


def _shapes_of_later(raw: Mapping[str, Tensor]) -> list[str]:
    """What in the shapes of its scanning layers tells VMamba's later models from the first."""
    reasons: list[str] = []
    biases = 0
    for name, tensor in raw.items():
        plain = _without_prefixes(name)
        biases += plain.endswith(".conv2d.bias")
        if tensor.ndim != 2 or not _BLOCK.match(plain):
            continue
        rows, columns = tensor.shape
        beside = raw.get(name.replace(".in_proj.weight", ".conv2d.weight"))
        if not plain.endswith(".in_proj.weight") or beside is None:
            continue
        inner = beside.shape[0]
        if rows == inner:
            reasons.append("its blocks have no gate")
        if inner != 2 * columns:
            reasons.append(f"it scans {inner} channels where blocks have {columns}, not twice them")
        if reasons:
            break
    return [
        *reasons,
        *(["its depthwise convolutions have no bias"] if reasons and not biases else []),
    ]


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
