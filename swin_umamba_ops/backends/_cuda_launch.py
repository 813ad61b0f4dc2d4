"""Passes of the CUDA kernels: how each is cut, where its tensors lie, and its launches.

Tensors go as addresses in one tuple: by name, field for field, they would take as long as the
launch.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._device import current
from swin_umamba_ops.torch_private import raw_stream

CHUNK = 32  # kTile in csrc/cuda/mapping.cuh


class Addresses(NamedTuple):
    """The pointers of ScanParams in csrc/cuda/params.h, in its order; 0 for what is not given."""

    x: int = 0
    delta: int = 0
    Bs: int = 0
    Cs: int = 0
    proj: int = 0
    dt_weight: int = 0
    A: int = 0
    Ds: int = 0
    bias: int = 0
    out: int = 0
    states: int = 0
    last_state: int = 0
    split_state: int = 0
    split_dt: int = 0
    leg_state: int = 0
    leg_turns: int = 0
    dout: int = 0
    dlast: int = 0
    dx: int = 0
    ddelta: int = 0
    dBs: int = 0
    dCs: int = 0
    dproj: int = 0
    dA: int = 0
    dDs: int = 0
    dbias: int = 0
    ddt_weight: int = 0


def address(t: Tensor | None) -> int:
    """Where a tensor lies; 0 for none."""
    return 0 if t is None else t.data_ptr()


def tiles(length: int) -> int:
    """Tiles of a sequence."""
    return -(-length // CHUNK)


def _params(image: bool, fields: dict[str, int]) -> Any:
    # The family of kernels goes by whether there is a proj.
    scan_params = _extension.module().cuda.ScanParams(**fields)
    return scan_params.with_addresses(Addresses(proj=int(image)))


@functools.cache
def why_too_large(device: torch.device, *, image: bool = False, **fields: int) -> str | None:
    """Why the kernels for these `fields` of ScanParams cannot run for want of shared memory."""
    cuda = _extension.module().cuda
    wanted = cuda.shared_bytes(_params(image, fields))
    index = torch.cuda.current_device() if device.index is None else device.index
    most = cuda.most_shared_bytes(index)
    if wanted <= most:
        return None
    return f"its kernels want {wanted} bytes of shared memory for a block, this GPU gives {most}"


def make_plan(which: str, device: torch.device, *, image: bool = False, **fields: int) -> Any:
    """The parameters of a pass, less the addresses: `fields`, and how the work is cut.

    Blocks of channels, and ranges and legs of the sequence by what fills `device`. `image` means
    the kernels that make dt themselves.
    """
    cuda = _extension.module().cuda
    params = _params(image, fields)
    params.directions = params.K
    with torch.cuda.device(device):
        params.blocks = cuda.channel_blocks(params)
        return cuda.cut(params, getattr(cuda.Pass, which))


def _launch(params: Any, which: str, device: torch.device) -> None:
    """One pass over everything, or, where determinism asks for it, one launch for each set of
    sums that must not meet in one address at the same time."""
    cuda = _extension.module().cuda
    stream = raw_stream(device)
    which = getattr(cuda.Pass, which)
    if not torch.are_deterministic_algorithms_enabled():
        cuda.launch(params, which, stream)
        return
    params = cuda.ScanParams(params)
    directions, blocks = params.directions, params.blocks
    params.directions = params.blocks = 1
    for params.first_direction in range(directions):
        for params.first_block in range(blocks):
            cuda.launch(params, which, stream)


def run(which: str, plan: Any, like: Tensor, addresses: Addresses, **fields: int) -> None:
    """Run a pass, with `fields` that its plan does not know.

    Cut into splits it takes one before, which finds what enters each.
    """
    device = like.device
    splits = plan.splits
    if torch.are_deterministic_algorithms_enabled():  # launches too small to be shared out evenly
        plan = _extension.module().cuda.ScanParams(plan)
        plan.legs, plan.least_shared = 1, 0
        if plan.one_state and not addresses.proj:  # the warps of a block would meet in dBs and dCs
            plan.one_state = 1
            plan.blocks = _extension.module().cuda.channel_blocks(plan)
    if splits > 1:
        rows = (plan.B, plan.K, splits, plan.D)
        state = like.new_empty((*rows, plan.N), dtype=torch.float32)
        dt = like.new_empty(rows, dtype=torch.float32)
        addresses = addresses._replace(split_state=state.data_ptr(), split_dt=dt.data_ptr())
    if plan.legs > 1:
        ranges = plan.B * plan.directions * plan.blocks * splits
        left = like.new_empty((plan.B, plan.K, splits, plan.D, plan.N), dtype=torch.float32)
        counters = _extension.module().cuda.leg_counters(ranges)
        turns = like.new_zeros((2, counters), dtype=torch.int32)
        addresses = addresses._replace(leg_state=left.data_ptr(), leg_turns=turns.data_ptr())
    params = plan.with_addresses(addresses)
    for name, value in fields.items():
        setattr(params, name, value)
    with current(device):
        if splits > 1:
            _launch(params, which + "_SPLITS", device)
        _launch(params, which, device)
