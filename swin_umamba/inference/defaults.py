"""The plan of a model that was trained on arrays, without one."""

from __future__ import annotations

from swin_umamba.data import Intensity, Plan
from swin_umamba.data.prepare.normalization import Scheme


def default_plan(in_channels: int, out_channels: int, patch_size: tuple[int, int]) -> Plan:
    """Z-scored channels, and classes named by number; its spacing of 1 is to be ignored."""
    names = {"background": 0, **{f"class {i}": i for i in range(1, out_channels)}}
    zscore: Scheme = "zscore"
    return Plan(
        dataset="",
        channel_names=tuple(f"channel {i}" for i in range(in_channels)),
        files_per_image=1,
        labels=names,
        values=tuple(names.values()),
        ignore_label=None,
        file_ending=".png",
        normalization=(zscore,) * in_channels,
        intensities=(Intensity(0.0, 1.0, 0.0, -1.0, 1.0),) * in_channels,
        axis=0,
        spacing=(1.0, 1.0),
        patch_size=patch_size,
    )
