"""What stands around the scan in a block, each in one or two passes over memory, channels last.

On GPUs these are Triton kernels behind torch.library ops, elsewhere PyTorch's own operators.
"""

from swin_umamba_ops.fused.convolution import conv3x3, norm_act_conv3x3
from swin_umamba_ops.fused.depthwise import depthwise_conv_silu
from swin_umamba_ops.fused.instance_norm import instance_norm_act
from swin_umamba_ops.fused.layer_norm import layer_norm

__all__ = [
    "conv3x3",
    "depthwise_conv_silu",
    "instance_norm_act",
    "layer_norm",
    "norm_act_conv3x3",
]
