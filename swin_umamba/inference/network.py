"""Networks that turn windows into logits: a model in memory, or an exported file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from swin_umamba.common.devices import amp_on, half_precision
from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.errors import UserError
from swin_umamba.inference.graphed import WindowGraphs
from swin_umamba.models import SegmentationModel

_GPU_LOCK = threading.Lock()


class NonFiniteError(UserError):
    """A network returned NaN or infinite logits, or has such weights."""


class Network(Protocol):
    """Windows (B, in_channels, h, w) float32 in, logits (B, out_channels, h, w) out.

    name: used in errors. device: where windows should be.
    """

    name: str
    in_channels: int
    out_channels: int
    device: torch.device

    def __call__(self, windows: Tensor, /) -> Tensor: ...


class TorchNetwork:
    """A model's finest logits, in eval mode and without gradients; the model itself is unchanged.

    amp: "off" for float32; on a GPU "bf16", "fp16" or "auto", whichever the GPU supports.
    cuda_graph: see `graphed.WindowGraphs`. Raises UserError for other values, and for graphs
    requested on a CPU.
    """

    def __init__(
        self,
        model: SegmentationModel,
        *,
        amp: str = "off",
        name: str | None = None,
        cuda_graph: CudaGraph = "auto",
    ) -> None:
        self.model = model
        self.name = name or f"the model ({type(model).__name__})"
        self.in_channels, self.out_channels = model.in_channels, model.out_channels
        self.device = next(model.parameters()).device
        amp = amp_on(self.device, amp) if amp == "auto" else amp
        self.dtype = half_precision(amp, self.device)
        if cuda_graph is True and self.device.type != "cuda":
            raise UserError("cuda_graph: got true, expected auto or false but on a CUDA device")
        self._graphs = WindowGraphs(model, self._forward, self.dtype, cuda_graph)
        self._lock = _GPU_LOCK if self.device.type == "cuda" else threading.Lock()

    def __call__(self, windows: Tensor) -> Tensor:
        # Threads share the model's mode, and on GPUs the memory of all models' graphs.
        with self._lock, _finest_only(self.model):
            return self._graphs(windows)

    def _forward(self, windows: Tensor) -> Tensor:
        half = torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)
        with torch.no_grad(), half:
            logits = self.model(windows)
        assert isinstance(logits, Tensor)  # a list only with deep supervision
        return logits


class Mirrored:
    """The mean of a network's logits over windows and their three mirror images."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.name = network.name
        self.in_channels, self.out_channels = network.in_channels, network.out_channels
        self.device = network.device

    def __call__(self, windows: Tensor) -> Tensor:
        total = self.network(windows).float()
        for axes in ((2,), (3,), (2, 3)):
            total = total + self.network(windows.flip(axes)).float().flip(axes)
        return total / 4


class Checked:
    """A network whose logits are guaranteed to be float32 and of the expected shape."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __call__(self, windows: Tensor) -> Tensor:
        logits = self.network(windows).float()
        expected = (windows.shape[0], self.network.out_channels, *windows.shape[2:])
        if tuple(logits.shape) != expected:
            raise UserError(
                f"{self.network.name} gives logits of shape {tuple(logits.shape)}, expected"
                f" {expected}"
            )
        return logits


def require_finite(model: SegmentationModel, name: str) -> None:
    """Raise NonFiniteError, naming the tensor, if a weight is NaN or infinite."""
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} holds NaN or infinite values in {key}")


@contextmanager
def _finest_only(model: SegmentationModel) -> Iterator[None]:
    """Temporarily switch to eval mode without deep supervision."""
    training, deep_supervision = model.training, model.deep_supervision
    if training:
        model.eval()
    model.deep_supervision = False
    try:
        yield
    finally:
        if training:
            model.train()
        model.deep_supervision = deep_supervision
