"""The result of a pretraining for other programs: stem and encoder, and their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swin_umamba.common.environment import commit
from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.networks import Front
from swin_umamba.pretrain.tiles import Tiles
from swin_umamba.runs.config import network_options
from swin_umamba.runs.log import Record
from swin_umamba.weights.saved import save_tensors
from swin_umamba_ops import __version__

ENCODER_FILE = "encoder.safetensors"
PRETRAINING = "pretraining"
"""Metadata key with a JSON object: see `provenance`."""


def provenance(config: PretrainConfig, tiles: Tiles, records: list[Record]) -> dict[str, Any]:
    """What the weights were trained on, how, and with what result."""
    mean, deviation = tiles.statistics()
    last = records[-1] if records else {}
    reached: dict[str, Any] = {
        name: last[name] for name in ("accuracy", "held_out_loss", "seconds") if name in last
    }
    return {
        "task": config.task,
        "images": tiles.name,
        "images_digest": tiles.digest,
        "count": len(tiles),
        "classes": len(tiles.classes),
        "in_channels": tiles.channels,
        "image_size": list(config.image_size),
        "mean": mean,
        "deviation": deviation,
        "model": config.model,
        "model_options": network_options(config.encoder, config.model_options),
        "iterations": last.get("iteration", 0),
        "batch_size": config.batch_size,
        "lr": config.lr,
        "seed": config.seed,
        "commit": commit(),
        **reached,
    }


def save_encoder(front: Front, path: Path, facts: dict[str, Any]) -> None:
    """Write stem and encoder under their names in segmentation models.

    `train --pretrained`, `create_model(pretrained=)`, `convert` and the nnU-Net trainers accept the
    file. Raises UserError if it cannot be written.
    """
    metadata = {
        "source": str(facts["images"]),
        "source_kind": "pretraining",
        "written_by": f"swin-umamba {__version__}",
        PRETRAINING: json.dumps(facts),
    }
    save_tensors(front.state_dict(), path, metadata, None)
