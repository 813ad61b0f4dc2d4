"""Run windows through a model by replaying CUDA graphs, one per window shape."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Hashable
from functools import cache
from itertools import chain
from typing import ClassVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from swin_umamba.common.graph_choice import CudaGraph, GraphChoice
from swin_umamba.common.graphs import GraphedInference, GraphPool
from swin_umamba.common.memory import is_out_of_gpu_memory
from swin_umamba.common.recent import Recent

MAX_GRAPHS = 4
"""Maximum number of shapes whose choice is kept; a graph holds memory for its activations."""
SETTLING, COUNTED = 2, 3
"""Batches timed each way before the faster one is kept, as in GraphChoice."""


@cache
def _pool(device: torch.device) -> GraphPool:
    """Shared by all networks: the folds of an ensemble have graphs of the same size."""
    return GraphPool(device)


class WindowGraphs:
    """Calls of a model on windows: each shape as a CUDA graph where that is faster.

    forward: the call itself, whose logits are a tensor. wanted: "auto" measures both ways for each
    shape; true captures every shape at once, and raises RuntimeError where that fails. With "auto"
    a failed capture ends the use of graphs for this model, and lack of memory for all models, with
    one warning. Graphs are captured again if the model's tensors have moved. Models with hooks are
    launched kernel by kernel. Only one thread may call at a time, whichever the model.
    """

    _alive: ClassVar[WeakSet[WindowGraphs]] = WeakSet()

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        dtype: torch.dtype | None,
        wanted: CudaGraph,
    ) -> None:
        self.model, self.dtype, self.wanted = model, dtype, wanted
        self._forward = forward
        self._choices: Recent[GraphChoice[GraphedInference]] = Recent(MAX_GRAPHS)
        self._captured_of: Hashable = None
        self._alive.add(self)

    def __call__(self, windows: Tensor) -> Tensor:
        """Logits that later calls do not overwrite."""
        if not _on_gpu(windows):
            return self._forward(windows)
        state = None if self.wanted is False else _state_of(self.model, windows)
        if state is None:
            return self._launched(windows)
        if state != self._captured_of:
            _idle_at(windows)  # what other streams still replay keeps its memory
            self._choices.clear()
            self._captured_of = state
        return self._chosen(windows)

    def _chosen(self, windows: Tensor) -> Tensor:
        choice = self._choices.get((windows.shape, windows.dtype), self._new_choice)
        graph = choice.graph(lambda: self._captured(windows))
        news = choice.news()
        if news is not None:  # before anything was measured: no graph can be captured
            self._end()
            warnings.warn(f"cuda_graph {news}", stacklevel=2)
        if not choice.open:
            return self._launched(windows) if graph is None else _copied(graph(windows))
        began = _idle_at(windows)
        logits = self._launched(windows) if graph is None else _copied(graph(windows))
        choice.count(_idle_at(windows) - began)
        choice.news()
        return logits

    def _launched(self, windows: Tensor) -> Tensor:
        """Launch kernel by kernel; if memory runs out, drop all graphs and try again."""
        try:
            return self._forward(windows)
        except RuntimeError as error:
            holding = [each for each in self._alive if each._holds_memory]
            if not (is_out_of_gpu_memory(error) and holding):
                raise
        for each in holding:
            each._end()
        warnings.warn("cuda_graph off: windows need the memory that graphs hold", stacklevel=2)
        return self._forward(windows)

    @property
    def _holds_memory(self) -> bool:
        return any(choice.captured for choice in self._choices.values())

    def _end(self) -> None:
        self.wanted = False
        self._choices.clear()

    def _captured(self, windows: Tensor) -> GraphedInference:
        return GraphedInference(self.model, windows, self.dtype, pool=_pool(windows.device))

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
    """The time at which the device has completed all queued work."""
    if windows.is_cuda:
        torch.cuda.synchronize(windows.device)
    return time.perf_counter()


def _state_of(model: nn.Module, windows: Tensor) -> Hashable:
    """Everything about a model and its environment that a graph fixes; None if hooks have to run.

    Addresses rather than values: weights changed in place are changed for a graph, too.
    """
    parts: list[Hashable] = [
        windows.device,
        torch.cuda.current_stream(windows.device).cuda_stream if windows.is_cuda else 0,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_inference_mode_enabled(),  # its tensors may not be written to outside of it
    ]
    for module in model.modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return None
        parts.append(module.training)
        tensors = chain(module._parameters.values(), module._buffers.values())
        parts += [t.data_ptr() for t in tensors if t is not None]
    return tuple(parts)
