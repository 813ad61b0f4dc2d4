"""CUDA graphs of a model: one launch instead of thousands, for batches too small to hide them.

A graph replays the same kernels, for one input shape, on the same memory: inputs are copied in, and
results are overwritten by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from swin_umamba.common.recent import Recent

Logits = list[Tensor] | Tensor
_Result = TypeVar("_Result")
_WARM_UPS = 3  # as in torch.cuda.make_graphed_callables: libraries select and build their kernels


class GraphPool:
    """Memory shared by graphs, so that many need little more than the largest one.

    A replay overwrites the outputs of all others: copy them first, and keep all replays on one
    stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.handle = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)  # memory is reused by captures on the same one


class GraphedInference:
    """A model's forward under no_grad as one CUDA graph per image shape.

    model: on a CUDA device, in eval mode as a rule; its weights may change in place later. image:
    an example (B, C, H, W); dtype: for autocast, or None. max_graphs: maximum number of shapes,
    each of which holds memory for its activations. With 1, shapes other than the example's are
    refused; with more, a new shape is captured at its first call, in place of the least recently
    used one if necessary. A call returns logits as the model does, which the next call of that
    shape overwrites.
    """

    def __init__(
        self,
        model: nn.Module,
        image: Tensor,
        dtype: torch.dtype | None = None,
        *,
        max_graphs: int = 1,
        pool: GraphPool | None = None,
    ) -> None:
        self._model, self._dtype, self._pool = model, dtype, pool
        self._example = image.shape, image.dtype
        self._graphs: Recent[_GraphedForward] = Recent(max_graphs)
        self._of(image)

    def __call__(self, image: Tensor) -> Logits:
        if self._graphs.most == 1 and (image.shape, image.dtype) != self._example:
            raise _of_another_shape("image", image, *self._example)
        return self._of(image)(image)

    def _of(self, image: Tensor) -> _GraphedForward:
        key = image.shape, image.dtype, image.device
        return self._graphs.get(
            key, lambda: _GraphedForward(self._model, image, self._dtype, self._pool)
        )


class _GraphedForward:
    """The graph for one image shape."""

    def __init__(
        self, model: nn.Module, image: Tensor, dtype: torch.dtype | None, pool: GraphPool | None
    ) -> None:
        _check_device(image)
        self._image = image.clone()

        def forward() -> Logits:
            with torch.no_grad(), _autocast(dtype):
                logits: Logits = model(self._image)
                return logits

        self._graph, self._logits = _captured(forward, image.device, pool)

    def __call__(self, image: Tensor) -> Logits:
        with torch.cuda.device(self._image.device):
            _copy_in("image", self._image, image)
            self._graph.replay()
        return self._logits


class GraphedStep:
    """Forward, loss and backward for one batch shape as one CUDA graph.

    model: on a CUDA device; loss: of (outputs, target), a scalar; image, target: an example batch;
    dtype: for autocast, or None; scaler: its current scale multiplies the loss before the backward
    pass.

    batches: number of calls per optimizer step. With 1, a call sets every parameter's `grad` to
    this batch's gradient, without adding to earlier ones. With more, `grad` is the mean over that
    many batches after the last call; the call with `first` starts a new mean.

    A call returns the unscaled loss; the next call overwrites it and the gradients. Freezing or
    unfreezing parameters takes effect only in a new graph.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Logits, Tensor], Tensor],
        image: Tensor,
        target: Tensor,
        *,
        dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        batches: int = 1,
    ) -> None:
        _check_device(image)
        self._read = model, loss, scaler  # a replay reads their tensors, wherever the caller's are
        self._image, self._target = image.clone(), target.clone()
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        parameters = list(named.values())
        self._sums = _Sums(parameters) if batches > 1 else None

        def step() -> tuple[Tensor, list[Tensor | None]]:
            # Aliases of the weights that are leaves of this step alone: autograd accumulates a
            # parameter's gradient on the stream of the first loss still held, which need not be the
            # captured one.
            leaves = {name: p.detach().requires_grad_() for name, p in named.items()}
            with _autocast(dtype):
                outputs = torch.func.functional_call(model, leaves, (self._image,))
                value = loss(outputs, self._target)
            scaled: Tensor = value if scaler is None else scaler.scale(value)
            found = torch.autograd.grad(scaled, list(leaves.values()), allow_unused=True)
            if self._sums is not None:
                return value.detach(), self._sums.add(found, 1 / batches)
            pairs = zip(parameters, found, strict=True)
            return value.detach(), [None if g is None else _laid_out_as(p, g) for p, g in pairs]

        self._graph, (self._loss, found) = _captured(step, image.device)
        self._gradients = [(p, g) for p, g in zip(parameters, found, strict=True) if g is not None]

    def __call__(self, image: Tensor, target: Tensor, *, first: bool = True) -> Tensor:
        with torch.cuda.device(self._image.device):
            _copy_in("image", self._image, image)
            _copy_in("target", self._target, target)
            if first and self._sums is not None:
                self._sums.clear()
            self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss


class _Sums:
    """Gradient sums over batches, in one allocation that is cleared at once."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._whole = parameters[0].new_zeros(sum(p.numel() for p in parameters))
        parts = self._whole.split([p.numel() for p in parameters])
        self._parts = [
            part.as_strided(p.shape, p.stride()) for part, p in zip(parts, parameters, strict=True)
        ]

    def clear(self) -> None:
        self._whole.zero_()

    def add(self, gradients: Sequence[Tensor | None], share: float) -> list[Tensor | None]:
        """The sums after adding a scaled gradient each."""
        for part, gradient in zip(self._parts, gradients, strict=True):
            if gradient is not None:
                part.add_(gradient, alpha=share)
        pairs = zip(self._parts, gradients, strict=True)
        return [None if gradient is None else part for part, gradient in pairs]


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with its parameter's strides, as backward() would leave it."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _autocast(dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast("cuda", dtype, enabled=dtype is not None)


def _check_device(image: Tensor) -> None:
    if image.device.type != "cuda":
        raise ValueError(f"image: got a tensor on {image.device}, expected one on a CUDA device")


def _copy_in(name: str, static: Tensor, new: Tensor) -> None:
    if new.shape != static.shape or new.dtype != static.dtype:
        raise _of_another_shape(name, new, static.shape, static.dtype)
    static.copy_(new)


def _of_another_shape(name: str, new: Tensor, shape: torch.Size, dtype: torch.dtype) -> ValueError:
    return ValueError(
        f"{name}: got {tuple(new.shape)} of {new.dtype}, expected {tuple(shape)} of {dtype} as in"
        " the graph"
    )


def _captured(
    run: Callable[[], _Result], device: torch.device, pool: GraphPool | None = None
) -> tuple[torch.cuda.CUDAGraph, _Result]:
    """The graph of a call and its outputs: memory that each replay overwrites."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream() if pool is None else pool.stream
        handle = None if pool is None else pool.handle
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # On this stream: torch's default capture stream belongs to the GPU that captured first.
        # Work of other threads meanwhile, such as pinning a loader's batches, is not part of the
        # graph.
        try:
            with torch.cuda.graph(graph, handle, side, capture_error_mode="thread_local"):
                result = run()
        except RuntimeError:
            _renew_generator()
            raise
    return graph, result


def _renew_generator() -> None:
    """Make random numbers work again on the current device, with a new seed.

    A failed capture leaves the generator in capture mode, and every later draw would fail.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    fresh = torch.Generator(device).graphsafe_get_state()
    torch.cuda.default_generators[device.index].graphsafe_set_state(fresh)
