"""Recognize a checkpoint by its content, and translate its names to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from swin_umamba.common.encoders import VMAMBA, VMAMBA_V2
from swin_umamba.weights.architecture import ENCODER, STEM

KINDS = {
    VMAMBA: "VMamba's encoder",
    VMAMBA_V2: "VMamba's encoder of the second generation",
}
SELF = "Swin-UMamba weights"
RELEASE = "nnU-Net checkpoint"
FITS = (
    "supported are VMamba's ImageNet checkpoints, first and second generation, checkpoints of"
    " Swin-UMamba's release, and files of swin-umamba"
)
_WRAPPERS = ("network_weights", "model", "model_ema", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 6

# Later names of VMamba's first generation, and the position of its downsampling, in the order in
# which they are tried. The names of the second generation are ours.
_RENAMES = (
    (re.compile(r"^patch_embed\.0\."), "patch_embed.proj."),
    (re.compile(r"^patch_embed\.2\."), "patch_embed.norm."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.norm\."), r"\1.ln_1."),
    (re.compile(r"^(layers\.\d+\.blocks\.\d+)\.op\."), r"\1.self_attention."),
    (re.compile(r"^layers\.(\d+)\.downsample\."), r"downsamples.\1."),
)
_HEAD = re.compile(r"^(norm|head|classifier)\.")
_CONV_DOWNSAMPLE = re.compile(r"^layers\.\d+\.downsample\.\d")
_LINEAR = re.compile(r"^layers\.\d+\.blocks\.\d+\.(op\.(in|out)_proj|mlp\.fc[12])\.weight$")
_BLOCK = re.compile(r"^layers\.\d+\.blocks\.\d+\.(ln_1|norm|self_attention|op)\.")


@dataclass(frozen=True)
class Checkpoint:
    """A recognized checkpoint.

    kind: display name. whole: it contains a whole model rather than only an encoder. tensors: by
    our names. sources: for each of our names, the name in the file. skipped: names in the file that
    no model of ours has, and why. left_out: our names of tensors that were left out of the file by
    request when it was converted.
    """

    kind: str
    whole: bool
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    skipped: dict[str, str]
    shapes: dict[str, tuple[int, ...]]  # bytes of skipped tensors
    left_out: frozenset[str] = field(default_factory=frozenset)


def recognise(content: Any, *, ema: bool = False, encoder_only: bool = False) -> Checkpoint:
    """Recognize `content`, as returned by `read_checkpoint`. ema: use VMamba's averaged weights.

    encoder_only: skip everything but the encoder of a whole model.

    Raises ValueError for checkpoints of other models, with the reason and what is supported.
    """
    raw, wrapper = _unwrap(content, ema)
    names = {name: _without_prefixes(name) for name in raw}
    if len(set(names.values())) < len(names):
        raise ValueError("several of its tensors have the same name without module. and _orig_mod.")
    if any(name.startswith(ENCODER) for name in names.values()):
        kind = f"{RELEASE} of Swin-UMamba" if wrapper == "network_weights" else SELF
        sources = {ours: name for name, ours in names.items()}
        rest = [n for n in sources if not n.startswith(ENCODER)]
        skipped, shapes = {}, {}
        if encoder_only:
            for ours in rest:
                source = sources.pop(ours)
                skipped[source] = "only the encoder was requested"
                shapes[source] = tuple(raw[source].shape)
        tensors = {ours: raw[n] for ours, n in sources.items()}
        # Pretraining also leaves the stem, if the model has one.
        whole = not encoder_only and any(not name.startswith(STEM) for name in rest)
        return Checkpoint(kind, whole, tensors, sources, skipped, shapes)
    generation = _generation(names, raw)
    tensors, sources, skipped, shapes = {}, {}, {}, {}
    for name, plain in names.items():
        if _HEAD.match(plain):
            skipped[name] = "the classifier has no place in a segmentation model"
            shapes[name] = tuple(raw[name].shape)
            continue
        tensor = raw[name]
        if generation == VMAMBA:
            for pattern, ours in _RENAMES:
                plain = pattern.sub(ours, plain)
        elif _LINEAR.match(plain) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
            tensor = tensor.flatten(1)  # VMamba had 1x1 convolutions where it has linear layers now
        tensors[ENCODER + plain], sources[ENCODER + plain] = tensor, name
    return Checkpoint(KINDS[generation], False, tensors, sources, skipped, shapes)


def _unwrap(content: Any, ema: bool) -> tuple[dict[str, Tensor], str]:
    """The state dict, and the key under which it was stored ("" if none)."""
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


def _generation(names: Mapping[str, str], raw: Mapping[str, Tensor]) -> str:
    """The block kind of VMamba's checkpoint; names: tensor names without prefixes, by original
    name.

    Raises ValueError for VMamba models between the two generations, and for other models.
    """
    if not any(_BLOCK.match(name) for name in names.values()):
        raise ValueError(
            f"it is of another model, with tensors such as {_listed(names.values())}; {FITS}"
        )
    by_name = {plain: raw[name] for name, plain in names.items()}
    scans = [name for name in by_name if name.endswith(".conv2d.weight")]
    signs = {
        "its blocks have MLP branches": any(".mlp." in name for name in by_name),
        "its patch embedding has two convolutions": "patch_embed.5.weight" in by_name,
        "it downsamples by convolutions": any(map(_CONV_DOWNSAMPLE.match, by_name)),
        "its blocks have no gate": any(_has_no_gate(by_name, name) for name in scans),
        "its depthwise convolutions have no bias": bool(scans)
        and not any(name.endswith(".conv2d.bias") for name in by_name),
    }
    found = [sign for sign, is_there in signs.items() if is_there]
    if len(found) == len(signs):
        return VMAMBA_V2
    found += _other_widths(by_name, scans)
    if not found:
        return VMAMBA
    lacking = [sign for sign in signs if sign not in found]
    raise ValueError(
        f"it is of a VMamba of neither generation: not of the first, as {', '.join(found)}; not of"
        f" the second, of which one would say: {', '.join(lacking)}; {FITS}"
    )


def _has_no_gate(tensors: Mapping[str, Tensor], scan: str) -> bool:
    """scan: name of a depthwise convolution's weight."""
    before = tensors.get(scan.replace(".conv2d.", ".in_proj."))
    return before is not None and before.shape[:1] == tensors[scan].shape[:1]


def _other_widths(tensors: Mapping[str, Tensor], scans: list[str]) -> list[str]:
    """What in the scan layers differs in width from the first generation."""
    for scan in scans:
        before = tensors.get(scan.replace(".conv2d.", ".in_proj."))
        if before is None or before.ndim != 2 or tensors[scan].ndim == 0:
            continue
        inner, columns = tensors[scan].shape[0], before.shape[1]
        if inner != 2 * columns:
            return [f"it scans {inner} channels where blocks have {columns}, not twice them"]
    return []


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")
