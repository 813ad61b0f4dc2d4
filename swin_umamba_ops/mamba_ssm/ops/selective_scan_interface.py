"""mamba-ssm's and Vim's names for the scan and the blocks around it."""

from swin_umamba_ops.mamba_ssm.inner import (
    bimamba_inner_fn,
    causal_conv1d_fn,
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    mamba_inner_ref,
)
from swin_umamba_ops.mamba_ssm.scan import selective_scan_fn, selective_scan_ref

__all__ = [
    "bimamba_inner_fn",
    "causal_conv1d_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "mamba_inner_ref",
    "selective_scan_fn",
    "selective_scan_ref",
]
