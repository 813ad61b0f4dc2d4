"""Images, masks and the patches cut from them."""

from swin_umamba.data.case import Case, normalize
from swin_umamba.data.images import read_image, read_mask
from swin_umamba.data.patches import PatchSampler

__all__ = ["Case", "PatchSampler", "normalize", "read_image", "read_mask"]
