"""Convert other checkpoints to our files, and our models back to original checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from swin_umamba.common.encoders import DEFAULT_ENCODER, ENCODERS, VMAMBA, VMAMBA_V2
from swin_umamba.common.files import file_for_torch, replacing, sha256
from swin_umamba.weights.architecture import PATCHES, STEM_PATCH, Architecture, shape_of
from swin_umamba.weights.first_layer import FirstLayer, check_way
from swin_umamba.weights.formats import Checkpoint
from swin_umamba.weights.load import (
    left_out_by_choice,
    match,
    open_checkpoint,
    problems_of,
    require_finite,
    require_stored,
)
from swin_umamba.weights.reader import is_safetensors
from swin_umamba.weights.report import ADAPTED, Report
from swin_umamba.weights.saved import LEFT_OUT, read_metadata, save_tensors
from swin_umamba_ops import __version__

if TYPE_CHECKING:
    from swin_umamba.models import SegmentationModel

_RELEASE_SUFFIXES = (".pth", ".pt")
_PROVENANCE = {
    "source", "source_sha256", "source_kind", "source_provenance", "written_by", "conversion",
    "pretraining",
}  # fmt: skip
_TRAINERS = {
    "swin_umamba": "nnUNetTrainerSwinUMamba",
    "swin_umamba_v1": "nnUNetTrainerSwinUMamba",
    "swin_umamba_d": "nnUNetTrainerSwinUMambaD",
}


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    in_channels: int | None = None,
    first_layer: FirstLayer = "mean",
    release_patch_norm: bool = False,
    ema: bool = False,
    encoder_only: bool = False,
) -> Report:
    """Write the content of a checkpoint under our names: an encoder from VMamba, a whole model from
    the original implementation or, with encoder_only, only the encoder of the latter.

    source: see `load_pretrained`. out: a safetensors file, whose metadata record the source's name
    and SHA-256, how it was converted, the source's own source if it was converted before, and what
    was left out on request; or, if it ends in .pth or .pt, a checkpoint in the original
    implementation's format, for whole models of its kind with nothing left out. model: which model
    it must be; auto-detected by default. An encoder is the same for all models that accept it.
    in_channels: of the image; by default as in the source. The other arguments are as in
    `load_pretrained`.

    Raises FileNotFoundError, ValueError for a file that is damaged, of another model or incomplete,
    and UserError if `out` cannot be written; no file is then left behind.
    """
    check_way(first_layer)
    checkpoint = open_checkpoint(source, ema=ema, encoder_only=encoder_only)
    try:
        require_stored(checkpoint.tensors)
        require_finite(checkpoint.tensors)
        config = describe(checkpoint, model, in_channels)
        built = _build(config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    places = built.state_dict()
    report, found = match(checkpoint, places, os.fspath(source), first_layer, release_patch_norm)
    left_out = left_out_by_choice(report, checkpoint, places)
    problems = problems_of(report, checkpoint, 1.0)
    if problems:
        raise ValueError(f"{source} is not a complete {config['name']}: {'; '.join(problems)}")
    if Path(out).suffix in _RELEASE_SUFFIXES:
        if not checkpoint.whole:
            raise ValueError(f"{source} holds only an encoder: the release has no such checkpoint")
        if left_out:
            raise ValueError(
                f"the release's checkpoints are complete; {', '.join(left_out)} would be missing"
            )
        _write_release(found, config, Path(out))
        return report
    metadata = {
        "source": Path(source).name,
        "source_sha256": sha256(source),
        "source_kind": checkpoint.kind,
        "written_by": f"swin-umamba {__version__}",
        "conversion": json.dumps(
            {
                "first_layer": first_layer if report.of(ADAPTED) else None,
                "release_patch_norm": release_patch_norm,
                "ema": ema,
                "encoder_only": encoder_only,
            }
        ),
    }
    if is_safetensors(source):
        earlier = read_metadata(source)
        if "source" in earlier:  # converted before: its own origin
            kept = {name: earlier[name] for name in sorted(_PROVENANCE & earlier.keys())}
            metadata["source_provenance"] = json.dumps(kept)
    if left_out:
        metadata[LEFT_OUT] = " ".join(left_out)
    save_tensors(found, out, metadata, config if checkpoint.whole else None)
    return report


def save_release_checkpoint(model: SegmentationModel, path: str | os.PathLike[str]) -> None:
    """Write a model of `create_model` as the original implementation's nnU-Net trainers do.

    The file has the keys that nnU-Net's predictor reads. Raises UserError if it cannot be written.
    """
    if model.config is None:
        raise ValueError("model: it was not made by create_model, so it has no name")
    tensors = {name: t.detach().cpu() for name, t in model.state_dict().items()}
    _write_release(tensors, model.config, Path(path))


def _write_release(tensors: dict[str, Tensor], config: dict[str, Any], path: Path) -> None:
    name, encoder = config["name"], config.get("encoder", DEFAULT_ENCODER)
    if encoder != DEFAULT_ENCODER or config.get("decoder_blocks", VMAMBA) != VMAMBA:
        raise ValueError(
            f"the release has no {name} with VMamba's second generation: write a .safetensors file"
        )
    if name not in _TRAINERS:
        raise ValueError(f"the release has no {name}; it has {', '.join(_TRAINERS)}")
    content = {
        "network_weights": tensors,
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 0,
        "init_args": {"configuration": "2d", "fold": 0},
        "trainer_name": _TRAINERS[name],
        "inference_allowed_mirroring_axes": None,
    }
    with replacing(path) as partial, file_for_torch(partial) as file:
        torch.save(content, file)


def describe(checkpoint: Checkpoint, model: str | None, in_channels: int | None) -> dict[str, Any]:
    """The arguments of `create_model` for a checkpoint, from its tensor names and shapes."""
    tensors = checkpoint.tensors
    architecture = Architecture.of(tensors)
    if not checkpoint.whole:
        if model is not None:
            _require_known(model)
        return _encoders_model(architecture, tensors, in_channels)
    patches = PATCHES[architecture.blocks]
    if "decoder.seg_layers.0.weight" in tensors:
        name, image, head = "swin_umamba_d", patches, "decoder.seg_layers.0.weight"
    else:
        last = f"decoder{len(architecture.depths) + 2}.transp_conv.conv.weight"
        name = "swin_umamba" if last in tensors else "swin_umamba_v1"
        image = "stem.0.weight" if architecture.blocks == VMAMBA else patches
        head = "out_layers.0.conv.conv.weight"
    if model not in (None, name):
        raise ValueError(f"it is of {name}, not of {model}")
    config = {
        "name": name,
        "in_channels": in_channels or shape_of(tensors, image)[1],
        "out_channels": shape_of(tensors, head)[0],
        **architecture.options(),
    }
    if image == "stem.0.weight":
        config["stem_dim"] = shape_of(tensors, image)[0]
    if name == "swin_umamba_d":
        blocks = VMAMBA_V2 if "decoder.stages.0.blocks.0.norm.weight" in tensors else VMAMBA
        if blocks != architecture.blocks:
            config["decoder_blocks"] = blocks
            # Otherwise it would count for the decoder's blocks too.
            if config.get("d_state") == ENCODERS[architecture.encoder].d_state:
                del config["d_state"]
    return config


def _encoders_model(
    architecture: Architecture, tensors: dict[str, Tensor], in_channels: int | None
) -> dict[str, Any]:
    """A model that accepts just the encoder.

    All of our models share one encoder, except for the first generation's patch embedding: on
    images, or behind a stem.
    """
    _, channels, height, _ = shape_of(tensors, PATCHES[architecture.blocks])
    if architecture.blocks == VMAMBA and height == STEM_PATCH:
        name, own = "swin_umamba", {"stem_dim": channels}
        own["in_channels"] = in_channels or _seen_by_stem(tensors)
    else:
        name, own = "swin_umamba_d", {"in_channels": in_channels or channels}
        if architecture.blocks == VMAMBA:
            own["patch_size"] = height
    return {"name": name, "out_channels": 2, **own, **architecture.options()}


def _seen_by_stem(tensors: dict[str, Tensor]) -> int:
    """Image channels of an encoder's stem; 1 if the file lacks it."""
    return shape_of(tensors, "stem.0.weight")[1] if "stem.0.weight" in tensors else 1


def _require_known(name: str) -> None:
    from swin_umamba.models import model_names

    if name not in model_names():
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(model_names())}")


def _build(config: dict[str, Any]) -> SegmentationModel:
    """Only the model's shapes: a small file may describe a huge model."""
    from swin_umamba.models.loading import laid_out

    return laid_out(config)
