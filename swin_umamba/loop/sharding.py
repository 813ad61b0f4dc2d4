"""FSDP: each process holds a shard of the weights, gradients and optimizer state.

Torch's modules for it are imported where they are used: they take about as long to import as torch
itself, and a process that trains alone needs none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from swin_umamba.models.block_kinds import RESIDUAL_BLOCKS


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard the parameters among all processes, in place, block by block.

    Names do not change; parameters become DTensors, so optimizers must be created afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in [module for module in model.modules() if isinstance(module, RESIDUAL_BLOCKS)]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gathered(value: Any) -> Any:
    """The same with full tensors in place of shards, also within dicts and lists.

    Must be called by all processes together, like `load_shares`.
    """
    if _is_share(value):
        return value.full_tensor().detach()
    if isinstance(value, dict):
        return {key: gathered(part) for key, part in value.items()}
    if isinstance(value, list):
        return [gathered(part) for part in value]
    return value


@torch.no_grad()
def load_shares(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a full state dict into a model sharded by `shard`."""
    targets = model.state_dict()
    if targets.keys() != state.keys():
        raise ValueError("the weights are of another model")
    for name, target in targets.items():
        target.copy_(_share(state[name], target))


def share_state(optimizer: torch.optim.Optimizer) -> None:
    """Shard an optimizer's loaded state like its parameters."""
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = _share(value, parameter)


def _share(whole: Tensor, like: Tensor) -> Tensor:
    if not _is_share(like) or _is_share(whole):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    moved = whole.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements)


def _is_share(value: Any) -> bool:
    """Whether it is a DTensor; there are none as long as nothing has imported their module."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


@contextmanager
def unsynced(model: nn.Module) -> Iterator[None]:
    """Within this context, gradients are not exchanged between processes."""
    from torch.distributed.fsdp import FSDPModule

    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
