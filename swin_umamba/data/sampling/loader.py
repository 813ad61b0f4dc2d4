"""Batches prefetched by worker processes."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swin_umamba.common.closing import Closing
from swin_umamba.common.parent import when_parent_ends
from swin_umamba.data.sampling.patches import PatchSampler
from swin_umamba.errors import UserError


class PatchLoader(Closing):
    """Iterate over `sampler.batch(start)`, `batch(start + 1)`, ..., in this order.

    workers: processes that prefetch batches; 0 computes each on request. The batches are the same
    for any number. stop: index to end before; None for no end. prefetch: batches that each worker
    keeps ready. pin_memory: for non-blocking copies to a CUDA device.

    Iterate only once; `close`, the end of a with block, and the end of this process by any signal
    all end the workers. Raises UserError with a worker's own message, and if a worker died.
    """

    def __init__(
        self,
        sampler: PatchSampler,
        *,
        workers: int = 0,
        start: int = 0,
        stop: int | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers: got {workers}, expected 0 or above")
        indices = itertools.count(start) if stop is None else range(start, stop)
        loader = DataLoader(
            _Batches(sampler),
            batch_size=None,
            sampler=indices,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            pin_memory=pin_memory,
            # A separate generator, so that creating one draws nothing from the generator of
            # training.
            generator=torch.Generator(),
            worker_init_fn=_end_with_parent,
        )
        self._iterator: Iterator[tuple[Tensor, Tensor] | str] | None
        with _same_handler():
            self._iterator = iter(loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._iterator is None:
            raise StopIteration
        try:
            made = next(self._iterator)
        except RuntimeError as error:
            self.close()
            # torch's message for a worker that was killed, perhaps for lack of memory.
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = str(error).splitlines()[0]
            raise UserError(f"a process that prepares batches failed: {reason}") from error
        if isinstance(made, str):
            self.close()
            raise UserError(made)
        return made

    def close(self) -> None:
        """End the workers, and the iteration."""
        self._iterator = None


def _end_with_parent(worker: int) -> None:
    """torch's own watchdog polls every 5 seconds, and keeps the parent's files open until then."""
    when_parent_ends(lambda: os._exit(1))


@contextmanager
def _same_handler() -> Iterator[None]:
    """Keep torch from handling SIGCHLD, which would raise for a dead worker at any point.

    Without it, the next batch raises, after at most 5 seconds.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # None is a handler that Python did not install and cannot restore.
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


class _Batches(Dataset[tuple[Tensor, Tensor] | str]):
    """A batch, or the message of its UserError, to which DataLoader would add a traceback."""

    def __init__(self, sampler: PatchSampler) -> None:
        self.sampler = sampler

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | str:
        try:
            return self.sampler.batch(index)
        except UserError as error:
            return str(error)
