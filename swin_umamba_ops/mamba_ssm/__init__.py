"""mamba-ssm's Mamba-1 under its own names, on our backends: models written for it run unchanged.

    import sys
    import swin_umamba_ops.mamba_ssm
    sys.modules["mamba_ssm"] = swin_umamba_ops.mamba_ssm

before the model's own imports, or `from swin_umamba_ops.mamba_ssm import Mamba` in place of them.
The modules have mamba-ssm's paths: ops/selective_scan_interface.py,
ops/triton/selective_state_update.py, modules/mamba_simple.py.
"""

from swin_umamba_ops.mamba_ssm.inner import (
    bimamba_inner_fn,
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    mamba_inner_ref,
)
from swin_umamba_ops.mamba_ssm.modules.mamba_simple import Mamba
from swin_umamba_ops.mamba_ssm.scan import selective_scan_fn, selective_scan_ref
from swin_umamba_ops.state_update import selective_state_update

__all__ = [
    "Mamba",
    "bimamba_inner_fn",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "mamba_inner_ref",
    "selective_scan_fn",
    "selective_scan_ref",
    "selective_state_update",
]
