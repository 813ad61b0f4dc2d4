"""Pretraining: `pretrain(config, read_tiles(images, config), folder)`."""

from swin_umamba.pretrain.config import PretrainConfig
from swin_umamba.pretrain.loop import PretrainResult, pretrain
from swin_umamba.pretrain.reading import read_tiles
from swin_umamba.pretrain.tiles import Tiles

__all__ = ["PretrainConfig", "PretrainResult", "Tiles", "pretrain", "read_tiles"]
