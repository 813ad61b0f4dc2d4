"""Load pretrained weights into a model, accounting for every tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba.common.encoders import VMAMBA, VMAMBA_V2
from swin_umamba.weights.architecture import ENCODER, PATCHES, STEM, STEM_PATCH, Architecture
from swin_umamba.weights.first_layer import FirstLayer, adapted, check_way
from swin_umamba.weights.formats import Checkpoint, recognise
from swin_umamba.weights.reader import is_safetensors, read_checkpoint
from swin_umamba.weights.report import (
    ADAPTED,
    LOADED,
    MISMATCHED,
    MISSING,
    RENAMED,
    SKIPPED,
    UNEXPECTED,
    Entry,
    Report,
)
from swin_umamba.weights.saved import LEFT_OUT, read_metadata

PATCH_NORM = f"{ENCODER}patch_embed.norm.weight"
_PATCH = f"{ENCODER}patch_embed.proj."
# Convolutions on the image: the stem or patch embedding, and the skip block at full size.
_FIRST = (
    "stem.0.weight",
    PATCHES[VMAMBA],
    PATCHES[VMAMBA_V2],
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
)
_CLASSES = re.compile(r"^(out_layers|decoder\.seg_layers)\.\d+\.")
_STEM = "in this model the patch embedding follows a stem"
_NO_STEM = "in this model the patch embedding sees the image, in the file a stem's output"
_SHOWN = 4


def load_pretrained(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    first_layer: FirstLayer = "mean",
    min_coverage: float = 1.0,
    release_patch_norm: bool = False,
    ema: bool = False,
    encoder_only: bool = False,
) -> Report:
    """Load a checkpoint into one of our models: a file of `swin-umamba convert`, or an original
    one.

    Originals are VMamba's ImageNet checkpoints (only the encoder, of the first or second
    generation), nnU-Net checkpoints of the original implementation, and plain state dicts,
    recognized by the names and shapes of their tensors. A whole model must provide every tensor, an
    encoder every encoder tensor, except: layers on the image, if the number of channels differs
    (first_layer: see `first_layer.WAYS`, or dropped); the heads, if the number of classes differs;
    and, for an encoder, stem and patch embedding, if only one of file and model has a stem. Tensors
    left out of the file at `convert` by request may be missing, too.

    min_coverage: minimum fraction of the checkpoint's tensors with a place in the model that must
    match. release_patch_norm: leave out the weight of the patch embedding's norm, but not its bias.
    The original loader does so by mistake (its list of exceptions names the weight twice and the
    bias never). Off by default: half a norm is nothing that anyone trained, and training can start
    from either. ema: use VMamba's averaged weights. encoder_only: load only the encoder, even from
    a whole model, which may then be another of our models.

    Values are converted to the model's dtype and device. Raises FileNotFoundError, or ValueError
    for a file that is damaged, of another model, or covers too little; the model is then unchanged.
    """
    places = model.state_dict()
    report, found = _fitting(
        places,
        type(model).__name__,
        path,
        first_layer=first_layer,
        min_coverage=min_coverage,
        release_patch_norm=release_patch_norm,
        ema=ema,
        encoder_only=encoder_only,
    )
    try:
        require_finite(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.load_state_dict({**places, **found})
    return report


def load_pretrained_encoder(
    encoder: nn.Module, path: str | os.PathLike[str], *, first_layer: FirstLayer = "mean"
) -> Report:
    """Load the encoder of a checkpoint into one of `create_encoder`: see `load_pretrained`."""
    places = {ENCODER + name: tensor for name, tensor in encoder.state_dict().items()}
    report, found = _fitting(
        places,
        type(encoder).__name__,
        path,
        first_layer=first_layer,
        min_coverage=1.0,
        release_patch_norm=False,
        ema=False,
        encoder_only=True,
    )
    loaded = {**places, **found}
    encoder.load_state_dict({name.removeprefix(ENCODER): t for name, t in loaded.items()})
    return report


def _fitting(
    places: dict[str, Any],
    model: str,
    path: str | os.PathLike[str],
    *,
    first_layer: FirstLayer,
    min_coverage: float,
    release_patch_norm: bool,
    ema: bool,
    encoder_only: bool,
) -> tuple[Report, dict[str, Tensor]]:
    """Match a file with a model's state dict: the report, and the tensors to load."""
    check_way(first_layer)
    if not 0.0 <= min_coverage <= 1.0:
        raise ValueError(f"min_coverage: got {min_coverage}, expected 0 to 1")
    checkpoint = open_checkpoint(path, ema=ema, encoder_only=encoder_only)
    report, found = match(checkpoint, places, os.fspath(path), first_layer, release_patch_norm)
    problems = problems_of(report, checkpoint, min_coverage)
    if problems:
        problems += _hints(report, checkpoint, places)
        raise ValueError(f"{path} does not fit {model}: {'; '.join(problems)}")
    return report, found


def new_heads(report: Report) -> list[str]:
    """Names of the model's output layers that a file with other classes left unchanged."""
    return [e.target for e in report.of(SKIPPED) if _CLASSES.match(e.target)]


def open_checkpoint(
    path: str | os.PathLike[str], *, ema: bool = False, encoder_only: bool = False
) -> Checkpoint:
    """Read and recognize a file. Errors are as in `load_pretrained`, and name it."""
    try:
        content = read_checkpoint(path)
        checkpoint = recognise(content, ema=ema, encoder_only=encoder_only)
    except ValueError as error:
        raise ValueError(_named(path, error)) from error
    left_out = read_metadata(path).get(LEFT_OUT, "").split() if is_safetensors(path) else []
    # Whatever the file's metadata say, nothing else may be missing.
    return replace(checkpoint, left_out=frozenset(left_out) & {PATCH_NORM, *_FIRST})


def left_out_by_choice(
    report: Report, checkpoint: Checkpoint, places: Mapping[str, Any]
) -> list[str]:
    """Our names of tensors that `match` skipped by request, and that a model still needs."""
    foreign = _foreign_patches(checkpoint, places)
    return [
        entry.target
        for entry in report.of(SKIPPED)
        if entry.target in (PATCH_NORM, *_FIRST)
        and not (foreign and entry.target.startswith(_PATCH))
    ]


def _foreign_patches(checkpoint: Checkpoint, places: Mapping[str, Any]) -> bool:
    """Whether one of encoder and model has patches of images and the other behind a stem."""
    if checkpoint.whole:
        return False
    place, patches = places.get(f"{_PATCH}weight"), checkpoint.tensors.get(f"{_PATCH}weight")
    if place is None:
        return False
    if "stem.0.weight" in places:
        return patches is None or patches.shape != place.shape
    return patches is not None and patches.shape[2:] == (STEM_PATCH,) * 2 != place.shape[2:]


def _hints(report: Report, checkpoint: Checkpoint, places: Mapping[str, Any]) -> list[str]:
    """What a file that does not fit contains, and what it would fit; empty if that is no help."""
    try:
        found, expected = Architecture.of(checkpoint.tensors), Architecture.of(places)
    except ValueError:  # the problems themselves say what is missing
        return []
    if found != expected:
        return [
            f"its encoder is of {found}, the model's of {expected}; what would fit is"
            f" create_model(..., {found.instead_of(expected)})"
        ]
    wrong = {entry.target or entry.source for entry in report.of(MISMATCHED, UNEXPECTED, MISSING)}
    # An encoder's patches may belong to another model.
    if not any(n.startswith(ENCODER) and not n.startswith(_PATCH) for n in wrong):
        return ["what would fit is its encoder alone: encoder_only, or `convert --encoder-only`"]
    return []


def match(
    checkpoint: Checkpoint,
    places: dict[str, Any],
    path: str,
    first_layer: str,
    release_patch_norm: bool,
) -> tuple[Report, dict[str, Tensor]]:
    """Match a checkpoint with a model's state dict: the report, and the tensors to load."""
    if release_patch_norm and PATCHES[VMAMBA_V2] in checkpoint.tensors:
        raise ValueError(
            "release_patch_norm: the release has no encoder of VMamba's second generation, of"
            f" which {path} is"
        )
    report = Report(path, checkpoint.kind)
    found: dict[str, Tensor] = {}
    foreign_patches = _foreign_patches(checkpoint, places)
    has_stem = any(target.startswith(STEM) for target in places)
    why_foreign = _STEM if "stem.0.weight" in places else _NO_STEM
    for source, why in checkpoint.skipped.items():
        report.entries.append(Entry(source, "", checkpoint.shapes[source], SKIPPED, why))
    for target, tensor in checkpoint.tensors.items():
        source, shape = checkpoint.sources[target], tuple(tensor.shape)
        place = tuple(places[target].shape) if target in places else None
        status, note = LOADED if source == target else RENAMED, ""
        if place is None:
            status, note = UNEXPECTED, "the model has no such tensor"
            if not checkpoint.whole and target.startswith(STEM) and not has_stem:
                status, note = SKIPPED, "this model has no stem"
        elif release_patch_norm and target == PATCH_NORM:
            status, note = SKIPPED, "the release leaves it out"
        elif foreign_patches and target.startswith(_PATCH):
            status, note = SKIPPED, why_foreign
        elif shape != place:
            status, note = _other_shape(target, shape, place, first_layer)
        if status == ADAPTED:
            require_stored({source: tensor})
            tensor = adapted(tensor, place[1], first_layer)  # type: ignore[index]
        if status in (LOADED, RENAMED, ADAPTED):
            found[target] = tensor
        report.entries.append(Entry(source, "" if place is None else target, shape, status, note))
    named = {entry.target for entry in report.entries}
    parts = (ENCODER, STEM) if any(t.startswith(STEM) for t in checkpoint.tensors) else (ENCODER,)
    for target, tensor in places.items():
        if target in named or not (checkpoint.whole or target.startswith(parts)):
            continue
        status, note = MISSING, "the checkpoint lacks it"
        if foreign_patches and target.startswith(_PATCH):
            status, note = SKIPPED, why_foreign
        elif target in checkpoint.left_out:
            status, note = SKIPPED, "left out when the file was converted"
        report.entries.append(Entry("", target, tuple(tensor.shape), status, note))
    return report, found


def require_stored(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a tensor with more values than stored: one value repeated many times."""
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{name} is of shape {tuple(tensor.shape)}, of which the file holds"
                f" {tensor.untyped_storage().nbytes()} bytes"
            )


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming one, for tensors with NaN or infinite values."""
    for name, tensor in tensors.items():
        # 8-bit floats have no isfinite.
        values = tensor.float() if tensor.element_size() == 1 else tensor
        if tensor.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"it holds NaN or infinite values in {name}: these weights are unusable"
            )


def _other_shape(
    target: str, shape: tuple[int, ...], place: tuple[int, ...], first_layer: str
) -> tuple[str, str]:
    rest_fits = len(shape) == len(place) and (shape[0], *shape[2:]) == (place[0], *place[2:])
    if target in _FIRST and rest_fits:
        note = f"{shape[1]} image channels to {place[1]}"
        return (SKIPPED, note) if first_layer == "drop" else (ADAPTED, f"{note}: {first_layer}")
    if _CLASSES.match(target) and shape[1:] == place[1:]:
        return SKIPPED, f"{shape[0]} classes, the model has {place[0]}"
    return MISMATCHED, f"of shape {shape}, the model's is {place}"


def problems_of(report: Report, checkpoint: Checkpoint, min_coverage: float) -> list[str]:
    """Why loading failed; empty if it succeeded."""
    problems = []
    if report.coverage < min_coverage:
        refused = report.of(MISMATCHED, UNEXPECTED)
        names = [f"{e.source} ({e.note})" for e in refused[:_SHOWN]]
        more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        problems.append(
            f"{100 * report.coverage:.1f} % of its tensors with a place fit, expected "
            f"{100 * min_coverage:g} %: {', '.join(names)}{more}"
        )
    missing = report.of(MISSING)
    if missing:
        names = [entry.target for entry in missing[:_SHOWN]]
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        problems.append(f"{len(missing)} missing: {', '.join(names)}{more}")
    if not checkpoint.tensors:
        problems.append("it holds no tensor of ours")
    return problems


def _named(path: str | os.PathLike[str], error: ValueError) -> str:
    """The reader's errors name the file; those of the recognition refer to it as `it`."""
    text = str(error)
    return text if text.startswith(str(path)) else f"{path}: {text}"
