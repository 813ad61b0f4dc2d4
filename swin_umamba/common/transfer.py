"""Tensors on their way to the host, while the device computes what it is asked for next."""

from __future__ import annotations

import torch
from torch import Tensor


class ToHost:
    """Tensors of one device that are being copied to the host.

    On a CUDA device through pinned memory, behind what its current stream was asked for until now.
    On a CPU they are themselves, and must not change before they are read.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._tensors = tensors
        device = tensors[0].device
        if device.type == "cuda":
            self._tensors = tuple(
                torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                for t in tensors
            )
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    def read(self) -> tuple[Tensor, ...]:
        """The tensors on the CPU, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors
