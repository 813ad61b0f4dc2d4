"""The models. Importing this package registers them."""

from swin_umamba.models.base import SegmentationModel
from swin_umamba.models.registry import create_model, model_names, register_model
from swin_umamba.models.swin_umamba import SwinUMamba
from swin_umamba.models.swin_umamba_d import SwinUMambaD
from swin_umamba.models.swin_umamba_v1 import SwinUMambaV1

__all__ = [
    "SegmentationModel",
    "SwinUMamba",
    "SwinUMambaD",
    "SwinUMambaV1",
    "create_model",
    "model_names",
    "register_model",
]
