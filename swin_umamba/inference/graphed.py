"""Windows through a model as replays of CUDA graphs, one for each of their shapes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable
from itertools import chain

import torch
from torch import Tensor, nn

from swin_umamba.common.graph_choice import CudaGraph, GraphChoice
from swin_umamba.common.graphs import GraphedInference
from swin_umamba.common.recent import Recent

MAX_GRAPHS = 4
"""Shapes whose graph, or choice of none, is kept; a graph holds memory for its activations."""
SETTLING, COUNTED = 2, 3
"""Batches of each way before the faster one is kept, as of GraphChoice."""


class WindowGraphs:
    """Calls of a model on windows: each shape as a CUDA graph where that is faster.

    forward: the call itself, whose logits are a tensor. wanted: "auto" measures both ways for each
    shape; true captures every shape at once, and raises RuntimeError where that fails. With "auto"
    a failure ends all graphs, with one warning.

    Graphs are captured again where the model's tensors lie elsewhere than before. Models with
    hooks are launched kernel by kernel. Of several threads one may call at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        dtype: torch.dtype | None,
        wanted: CudaGraph,
    ) -> None:
        self.model, self.forward, self.dtype, self.wanted = model, forward, dtype, wanted
        self._choices: Recent[GraphChoice[GraphedInference]] = Recent(MAX_GRAPHS)
        self._captured_of: Hashable = None

    def __call__(self, windows: Tensor) -> Tensor:
        """Logits that later calls leave as they are."""
        if self.wanted is False or not _on_gpu(windows):
            return self.forward(windows)
        state = _state_of(self.model, windows)
        if state is None:
            return self.forward(windows)
        if state != self._captured_of:
            _idle_at(windows)  # what other streams still replay keeps its memory
            self._choices.clear()
            self._captured_of = state
        return self._chosen(windows)

    def _chosen(self, windows: Tensor) -> Tensor:
        key = windows.shape, windows.dtype
        choice = self._choices.get(key, self._new_choice)
        graph = choice.graph(lambda: GraphedInference(self.model, windows, self.dtype))
        news = choice.news()
        if news is not None:  # before anything was measured: no graph can be captured
            self.wanted = False
            self._choices.clear()
            warnings.warn(f"cuda_graph {news}", stacklevel=2)
        if not choice.open:
            return self.forward(windows) if graph is None else _copied(graph(windows))
        began = _idle_at(windows)
        logits = self.forward(windows) if graph is None else _copied(graph(windows))
        choice.count(_idle_at(windows) - began)
        choice.news()
        return logits

    def _new_choice(self) -> GraphChoice[GraphedInference]:
        return GraphChoice(
            self.wanted, settling=SETTLING, counted=COUNTED, what="a batch of windows"
        )


def _on_gpu(windows: Tensor) -> bool:
    return windows.is_cuda and not torch.cuda.is_current_stream_capturing()


def _copied(logits: Tensor | list[Tensor]) -> Tensor:
    assert isinstance(logits, Tensor)  # a list only with deep supervision
    return logits.clone()


def _idle_at(windows: Tensor) -> float:
    """The time when the device has done all that it was asked for."""
    if windows.is_cuda:
        torch.cuda.synchronize(windows.device)
    return time.perf_counter()


def _state_of(model: nn.Module, windows: Tensor) -> Hashable:
    """What a graph fixes of a model and its surroundings; None where hooks have to run.

    Addresses, since weights that change in place do so for a graph, too.
    """
    parts: list[Hashable] = [
        windows.device,
        torch.cuda.current_stream(windows.device).cuda_stream if windows.is_cuda else 0,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    ]
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        parts.append(module.training)
        tensors = chain(module._parameters.values(), module._buffers.values())
        parts += [t.data_ptr() for t in tensors if t is not None]
    return tuple(parts)
