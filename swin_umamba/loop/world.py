"""The processes that train together: one, or those of `accelerate launch` and torchrun."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import signal
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba.common.devices import pick_device
from swin_umamba.common.parent import when_parent_ends
from swin_umamba.errors import UserError
from swin_umamba.loop.sharding import unsynced

LAUNCHED = "LOCAL_RANK"  # environment variable set by launchers
# Variables with the number of processes: of torchrun and accelerate, Open MPI, and MPICH.
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def launched() -> bool:
    """Whether a launcher started this process."""
    return LAUNCHED in os.environ


def announced_rank() -> int:
    """This process's rank among those started by a launcher, before they join."""
    return _number("RANK") if launched() else 0


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0


@functools.cache
def _warn_of_absent(joined: int) -> None:
    """Warn once if a launcher started more processes than train together."""
    for name in SIZES:
        if _number(name) > joined:
            warnings.warn(
                f"{name} announces {_number(name)} processes, but {joined} train together here:"
                " start them with torchrun or accelerate launch"
                " (accelerate: --num_processes, on CPUs with --cpu)",
                stacklevel=2,
            )
            return


@functools.cache
def _stop_with_launcher() -> None:
    """Stop this process as SIGTERM would when its launcher is gone, even if killed by SIGKILL."""
    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))


class World:
    """This process among those that train together, which accelerate finds and joins.

    device: as in TrainConfig.device; with several processes on GPUs each uses its own. Without a
    launcher accelerate is not needed. sharded: by FSDP instead of DDP. Raises UserError for
    unavailable devices, and for unsupported ways of distributing. Warns if a launcher started more
    processes than joined. Processes end with their launcher, as by SIGTERM.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.size = 0, 1
        self.sharded = False
        self._accelerator: Any = None
        if launched():
            self._join(device)
        else:
            self.device = pick_device(device)
        _warn_of_absent(self.size)

    def _join(self, device: str) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.utils import DistributedType

        if device not in ("auto", "cuda", "cpu"):
            raise UserError(f"device {device!r}: expected auto, cuda or cpu under a launcher")
        # Concerns gradients of convolutions, which are channels last; harmless.
        message = "Grad strides do not match bucket view strides"
        warnings.filterwarnings("ignore", message=message)
        cuda = torch.cuda.is_available()
        if not cuda:
            pick_device(device)
        if not torch.distributed.is_initialized():
            atexit.register(_leave)
        self._accelerator = Accelerator(
            cpu=not cuda or device == "cpu",
            mixed_precision="no",  # the training loop's own autocast decides
            device_placement=False,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        kind = self._accelerator.distributed_type
        known = (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP)
        if kind not in (DistributedType.NO, *known):
            raise UserError(f"training under {kind.value} is not supported, only DDP and FSDP are")
        self.rank = self._accelerator.process_index
        self.size = self._accelerator.num_processes
        self.device = self._accelerator.device
        # accelerate itself does not set up FSDP on CPUs.
        sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        self.sharded = sharded and self.size > 1
        _stop_with_launcher()

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model to train with: with several processes, wrapped in DDP, unless it is sharded.

        Must be called again whenever the set of parameters that require gradients changes.
        """
        if self.size == 1 or self.sharded:
            return model
        self._accelerator.free_memory()
        wrapped: nn.Module = self._accelerator.prepare_model(model, device_placement=False)
        return wrapped

    def unsynced(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Within this context, gradients are not exchanged between processes."""
        if self.sharded:
            return unsynced(model)
        alone: AbstractContextManager[Any] = (
            self._accelerator.no_sync(model) if self.size > 1 else nullcontext()
        )
        return alone

    def highest(self, *values: float) -> list[float]:
        """Each value's maximum over the processes."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return shared.tolist()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average each tensor over all processes, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def gathered(self, values: list[Any]) -> list[Any]:
        """The concatenated lists of all processes, in every process."""
        if self.size == 1:
            return values
        from accelerate.utils import gather_object

        everyone: list[Any] = gather_object(values)
        return everyone

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            self._accelerator.wait_for_everyone()


class Alone(World):
    """A single process that trains on its own, however it was launched."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size, self.sharded, self.device = 0, 1, False, device


def _leave() -> None:
    """Destroy the process group on CPUs before the interpreter shuts down.

    A Gloo thread frees the tensors of the last reductions. If it requests the interpreter's lock
    after shutdown, the process is aborted, although training went well.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_backend() != "gloo":
        return
    # A DDP model must not outlive its group: it would wait, holding the lock, for such a thread.
    gc.collect()
    torch.distributed.destroy_process_group()
