"""FSDP: each process holds a shard of the weights, gradients and optimizer state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from swin_umamba.models.block_kinds import RESIDUAL_BLOCKS


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard the parameters among all processes, in place, block by block.

    Names do not change; parameters become DTensors, so optimizers must be created afterwards.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for block in [module for module in model.modules() if isinstance(module, RESIDUAL_BLOCKS)]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gathered(value: Any) -> Any:
    """The same with full tensors in place of shards, also within dicts and lists.

    Must be called by all processes together, like `load_shares`.
    """
    if isinstance(value, DTensor):
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
    if not isinstance(like, DTensor) or isinstance(whole, DTensor):
        return whole
    moved = whole.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements)


@contextmanager
def unsynced(model: nn.Module) -> Iterator[None]:
    """Within this context, gradients are not exchanged between processes."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
