"""Copy tensors to the host while the device continues to compute."""

from __future__ import annotations

import torch
from torch import Tensor


class ToHost:
    """Tensors of one device that are being copied to the host.

    On a CUDA device they are copied through pinned memory, after the work queued so far on its
    current stream. On a CPU they are the tensors themselves, and must not change before they are
    read.
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
        """The tensors on the CPU, once the copies are complete."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors
