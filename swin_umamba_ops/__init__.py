"""The four-direction selective scan of Swin-UMamba, on any device, with only PyTorch as dependency.

    y = swin_umamba_ops.ss2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)

`python -m swin_umamba_ops` shows which backends work on this machine, and why others do not.
"""

from swin_umamba_ops._version import __version__
from swin_umamba_ops.backends import available_backends
from swin_umamba_ops.functional import selective_scan, ss2d
from swin_umamba_ops.fused import (
    conv3x3,
    depthwise_conv_silu,
    fused_backend,
    instance_norm_act,
    layer_norm,
    mlp_gelu,
    norm_act_conv3x3,
    segmentation_sums,
)
from swin_umamba_ops.mamba_ssm import (
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    selective_scan_fn,
)
from swin_umamba_ops.scan_order import cross_merge, cross_scan
from swin_umamba_ops.state_update import selective_state_update

__all__ = [
    "__version__",
    "available_backends",
    "conv3x3",
    "cross_merge",
    "cross_scan",
    "depthwise_conv_silu",
    "fused_backend",
    "instance_norm_act",
    "layer_norm",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "mlp_gelu",
    "norm_act_conv3x3",
    "segmentation_sums",
    "selective_scan",
    "selective_scan_fn",
    "selective_state_update",
    "ss2d",
]
