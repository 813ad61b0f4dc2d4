"""mamba-ssm's name for one step of the scan; served by any backend."""

from swin_umamba_ops.state_update import selective_state_update

__all__ = ["selective_state_update"]
