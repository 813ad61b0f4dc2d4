"""The model of a run, its optimizer, and its precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from swin_umamba.errors import UserError
from swin_umamba.loop.groups import parameter_groups
from swin_umamba.models import SegmentationModel, create_model, takes_patch_size
from swin_umamba.models.block_kinds import RESIDUAL_BLOCKS
from swin_umamba.models.loading import laid_out
from swin_umamba.runs.config import TrainConfig, network_options
from swin_umamba.runs.run import Run
from swin_umamba.weights import continue_weights


def build_model(
    config: TrainConfig, *, pretrained: bool, outputs: int | None = None
) -> SegmentationModel:
    """The model on the CPU, with random weights from the config's seed.

    pretrained: load the weights named in the config, from a file or run. outputs: of the network,
    if that is not the number of classes. Raises UserError for a model or options that do not exist,
    and for weights that are missing, damaged, or of another model.
    """
    options = network_options(config.encoder, config.model_options)
    if takes_patch_size(config.model):
        options = {"patch_size": config.patch_size, **options}
    arguments: dict[str, Any] = {
        "name": config.model,
        "in_channels": config.in_channels,
        "out_channels": config.num_classes if outputs is None else outputs,
        "deep_supervision": config.deep_supervision,
        **options,
    }
    try:
        laid_out(arguments)
        torch.manual_seed(config.seed)
        model = create_model(**arguments, pretrained=config.pretrained if pretrained else None)
        if pretrained and config.continue_from is not None:
            weights = Run.open(config.continue_from).weights()
            model.pretrained_report = continue_weights(model, weights)
        return model
    except (ValueError, OSError) as error:
        raise UserError(f"cannot build the model: {error}") from error
    except RuntimeError as error:  # from torch, when out of memory
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot build the model: {reason}") from error


def build_optimizer(
    model: SegmentationModel, config: TrainConfig, device: torch.device
) -> torch.optim.AdamW:
    """AdamW, with the config's learning rates and decays for each part of the model."""
    return torch.optim.AdamW(
        parameter_groups(
            model.named_parameters(),
            weight_decay=config.weight_decay,
            decay_all=config.decay_all,
            encoder_scale=(config.encoder_lr or config.lr) / config.lr,
            layer_decay=config.layer_decay,
        ),
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def checkpoint_activations(model: SegmentationModel) -> None:
    """Make every residual block keep only its input, and run again in the backward pass."""
    for module in model.modules():
        if isinstance(module, RESIDUAL_BLOCKS):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
