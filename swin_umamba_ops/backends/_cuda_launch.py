"""Passes of the CUDA kernels: how each is partitioned, and its launches.

A pass is described by the parameters of its kernel family (csrc/cuda/params.h): a plan, which is
everything but the addresses and is made once per kind of input, and the addresses of a call.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._device import current
from swin_umamba_ops.backends._memory import ALIGNMENT
from swin_umamba_ops.torch_private import raw_stream

# Steps between two saved states. Repeated here since fake kernels need it without the module.
chunk_length = 32

_compiled = _extension.part("cuda")
DTYPES: dict[torch.dtype, int] = {}
if _compiled is not None:
    assert chunk_length == _compiled.TILE
    assert _compiled.ALIGNMENT == ALIGNMENT
    DTYPES = {
        torch.float32: int(_compiled.DType.FLOAT32),
        torch.float16: int(_compiled.DType.FLOAT16),
        torch.bfloat16: int(_compiled.DType.BFLOAT16),
    }


def compiled() -> Any:
    """The compiled module's CUDA part. RuntimeError with the reason if it is missing."""
    return _extension.module().cuda if _compiled is None else _compiled


def address(t: Tensor | None) -> int:
    """A tensor's address; 0 for None."""
    return 0 if t is None else t.data_ptr()


def tiles(length: int) -> int:
    """Number of tiles in a sequence."""
    return -(-length // chunk_length)


@functools.cache
def why_too_large(device: torch.device, family: Any, **fields: int) -> str | None:
    """Why a family's kernels with these fields cannot run, if there is too little shared memory."""
    needed = compiled().params(family, **fields).shared_bytes()
    index = torch.cuda.current_device() if device.index is None else device.index
    available = compiled().max_shared_bytes(index)
    if needed <= available:
        return None
    return (
        f"its kernels need {needed} bytes of shared memory for a block, this GPU gives {available}"
    )


def make_plan(which: str, device: torch.device, family: Any, **fields: int) -> Any:
    """The parameters of a pass without the addresses: `fields`, and the partition of its work into
    blocks of channels, and splits and segments of the sequence, that fills `device`."""
    params = compiled().params(family, **fields)
    params.directions = params.K
    with torch.cuda.device(device):
        params.blocks = params.channel_blocks()
        params.partition(getattr(compiled().Pass, which))
    return params


def _launch(params: Any, which: str, device: torch.device) -> None:
    """One pass over everything or, in deterministic mode, one launch per set of sums to which two
    blocks must not add at the same time."""
    stream = raw_stream(device)
    which = getattr(compiled().Pass, which)
    if not torch.are_deterministic_algorithms_enabled():
        params.launch(which, stream)
        return
    part = params.replace(directions=1, blocks=1)
    for direction in range(params.directions):
        for block in range(params.blocks):
            part.first_direction, part.first_block = direction, block
            part.launch(which, stream)


def run(which: str, plan: Any, like: Tensor, addresses: dict[str, int]) -> None:
    """Run a pass over the tensors at `addresses`, on the device of `like`.

    If it is cut into splits, a pass before it computes the state entering each.
    """
    device = like.device
    splits = plan.splits
    if torch.are_deterministic_algorithms_enabled():  # launches too small to be worth balancing
        plan = plan.replace(segments=1, min_shared_bytes=0)
        family = compiled().Family
        if plan.family in (family.ONE_STATE, family.ONE_STATE_IMAGE):
            plan.one_state_blocks = 1  # several blocks would add to one row of sums
        # several warps of a block would add to one dBs
        if plan.family == family.ONE_STATE:
            plan.one_state = 1
            plan.blocks = plan.channel_blocks()
    if splits > 1:
        rows = (plan.B, plan.K, splits, plan.D)
        state = like.new_empty((*rows, plan.N), dtype=torch.float32)
        dt = like.new_empty(rows, dtype=torch.float32)
        addresses = addresses | {"split_state": state.data_ptr(), "split_dt": dt.data_ptr()}
    if plan.segments > 1:
        ranges = plan.B * plan.directions * plan.blocks * splits
        carry = like.new_empty((plan.B, plan.K, splits, plan.D, plan.N), dtype=torch.float32)
        counters = like.new_zeros((2, compiled().segment_counters(ranges)), dtype=torch.int32)
        addresses = addresses | {"carry_state": carry.data_ptr(), "counters": counters.data_ptr()}
    params = plan.replace(**addresses)
    with current(device):
        if splits > 1:
            _launch(params, which + "_SPLITS", device)
        _launch(params, which, device)
