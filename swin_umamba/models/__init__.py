"""The models. Importing this package registers them."""

from swin_umamba.common.encoders import encoder_names
from swin_umamba.models import baselines, resenc
from swin_umamba.models.base import SegmentationModel
from swin_umamba.models.encoder_registry import create_encoder
from swin_umamba.models.encoders import Encoder
from swin_umamba.models.factory import create_model
from swin_umamba.models.registry import (
    baseline_names,
    model_names,
    register_model,
    takes_patch_size,
)
from swin_umamba.models.swin_umamba import SwinUMamba
from swin_umamba.models.swin_umamba_d import SwinUMambaD
from swin_umamba.models.swin_umamba_v1 import SwinUMambaV1

__all__ = [
    "Encoder",
    "SegmentationModel",
    "SwinUMamba",
    "SwinUMambaD",
    "SwinUMambaV1",
    "baseline_names",
    "baselines",
    "create_encoder",
    "create_model",
    "encoder_names",
    "model_names",
    "register_model",
    "resenc",
    "takes_patch_size",
]
