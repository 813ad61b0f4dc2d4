"""How well a segmentation agrees with the truth."""

from swin_umamba.metrics.instances import InstanceScores, instance_f1
from swin_umamba.metrics.overlap import dice
from swin_umamba.metrics.surface import normalized_surface_dice

__all__ = ["InstanceScores", "dice", "instance_f1", "normalized_surface_dice"]
