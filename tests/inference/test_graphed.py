"""Windows by CUDA graphs: on a CPU with a stand-in for the graph, and on a GPU as they are."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from swin_umamba import Predictor, create_model
from swin_umamba.errors import UserError
from swin_umamba.inference import graphed
from swin_umamba.inference.graphed import COUNTED, MAX_GRAPHS, SETTLING
from swin_umamba.inference.network import Mirrored, TorchNetwork
from swin_umamba.models import SegmentationModel

BEFORE_GRAPHS = SETTLING + COUNTED


def _model(seed: int = 0) -> SegmentationModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"dims": (8, 16), "depths": (1, 1), "d_state": 4}
    return create_model("swin_umamba_d", in_channels=2, out_channels=3, **sizes).eval()


def _windows(count: int, seed: int = 0, side: int = 16) -> Tensor:
    return torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(seed))


class Standing:
    """For a graph: it serves one shape, computes in place, and knows only tensors that it saw."""

    alive: ClassVar[list[Standing]] = []
    seconds: ClassVar[float] = 0.0  # by a clock that only calls move
    takes: ClassVar[float] = 0.01

    def __init__(self, model: Any, windows: Tensor, dtype: Any, pool: Any) -> None:
        Standing.alive.append(self)
        self.model, self.windows = model, windows.clone()
        self.logits = torch.zeros(0)
        self.addresses = [p.data_ptr() for p in model.parameters()]
        self.replays = 0

    def __call__(self, windows: Tensor) -> Tensor:
        assert self.addresses == [p.data_ptr() for p in self.model.parameters()]
        self.windows.copy_(windows)
        with torch.no_grad():
            found = self.model(self.windows)
        if self.replays == 0:
            self.logits = found
        self.logits.copy_(found)
        self.replays += 1
        Standing.seconds += self.takes
        return self.logits


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Standing]:
    """Graphs on a CPU that are always the faster way."""
    monkeypatch.setattr(Standing, "alive", [])
    monkeypatch.setattr(graphed, "_on_gpu", lambda windows: True)
    monkeypatch.setattr(graphed, "_pool", lambda device: "shared")
    monkeypatch.setattr(graphed, "GraphedInference", Standing)
    monkeypatch.setattr(graphed, "_idle_at", lambda windows: Standing.seconds)
    forward = TorchNetwork._forward

    def slow(network: TorchNetwork, windows: Tensor) -> Tensor:
        Standing.seconds += 1
        return forward(network, windows)

    monkeypatch.setattr(TorchNetwork, "_forward", slow)
    return Standing.alive


def _eager(model: SegmentationModel, windows: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(windows)[0]
    return found


def test_a_shape_is_replayed_after_both_ways_were_timed(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model)
    for call in range(4 * BEFORE_GRAPHS):
        windows = _windows(2, call)
        torch.testing.assert_close(network(windows), _eager(model, windows))
        assert len(stand_in) == (call >= BEFORE_GRAPHS)
    assert stand_in[0].replays == 3 * BEFORE_GRAPHS


def test_logits_outlast_the_next_call(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model, cuda_graph="auto")
    network._graphs.wanted = True
    first = network(_windows(1, 1))
    network(_windows(1, 2))
    torch.testing.assert_close(first, _eager(model, _windows(1, 1)))
    mirrored = Mirrored(network)(_windows(1, 3))
    plain = Mirrored(TorchNetwork(model, cuda_graph=False))(_windows(1, 3))
    torch.testing.assert_close(mirrored, plain)


def test_few_shapes_are_kept(stand_in: list[Standing]) -> None:
    network = TorchNetwork(_model())
    network._graphs.wanted = True
    for count in range(1, MAX_GRAPHS + 2):
        network(_windows(count))
    assert len(stand_in) == MAX_GRAPHS + 1
    network(_windows(MAX_GRAPHS + 1))
    assert len(stand_in) == MAX_GRAPHS + 1
    network(_windows(1))  # made room for the last
    assert len(stand_in) == MAX_GRAPHS + 2


def test_a_slower_graph_is_dropped(
    stand_in: list[Standing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Standing, "takes", 0.99)
    network = TorchNetwork(_model())
    for call in range(3 * BEFORE_GRAPHS):
        network(_windows(1, call))
    assert stand_in[0].replays == BEFORE_GRAPHS


def test_graphs_of_inference_mode_are_not_used_outside(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model)
    network._graphs.wanted = True
    with torch.inference_mode():
        network(_windows(1, 1))
    torch.testing.assert_close(network(_windows(1, 2)), _eager(model, _windows(1, 2)))


def test_weights_that_change_count_wherever_they_lie(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model)
    network._graphs.wanted = True
    before = network(_windows(1))
    for change in (
        lambda: [p.data.mul_(1.5) for p in model.parameters()],  # in place
        lambda: [setattr(p, "data", p.data * 0.5) for p in model.parameters()],
    ):
        change()
        after = network(_windows(1))
        assert not torch.allclose(after, before)
        torch.testing.assert_close(after, _eager(model, _windows(1)))
    assert len(stand_in) == 2


def test_hooks_run(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model)
    network._graphs.wanted = True
    network(_windows(1))
    seen: list[int] = []
    handle = next(model.children()).register_forward_hook(lambda *given: seen.append(1))
    network(_windows(1))
    network(_windows(1))
    assert len(seen) == 2
    handle.remove()
    network(_windows(1))
    assert len(seen) == 2


def test_a_failure_is_said_once_and_ends_all_graphs(
    stand_in: list[Standing], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def failing(*given: Any, **named: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(graphed, "GraphedInference", failing)
    model = _model()
    network = TorchNetwork(model)
    for count in (1, 2):
        for call in range(2 * BEFORE_GRAPHS):
            windows = _windows(count, call)
            torch.testing.assert_close(network(windows), _eager(model, windows))
    said = [str(w.message) for w in recwarn if "cuda_graph" in str(w.message)]
    assert said == [
        "cuda_graph off: a batch of windows could not be captured: CUDA error: operation not"
        " permitted"
    ]
    required = TorchNetwork(model)
    required._graphs.wanted = True
    with pytest.raises(RuntimeError, match="not permitted"):
        required(_windows(1))


def test_graphs_make_room_for_windows_without_one(
    stand_in: list[Standing], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Those of another model, too."""
    model = _model()
    first, second = TorchNetwork(model), TorchNetwork(_model(1))
    first._graphs.wanted = True
    first(_windows(2))
    single = second._graphs._forward

    class OutOfMemoryError(RuntimeError):
        pass

    def full(windows: Tensor) -> Tensor:
        if len(first._graphs._choices):
            raise OutOfMemoryError("CUDA out of memory")
        return single(windows)

    monkeypatch.setattr(second._graphs, "_forward", full)
    torch.testing.assert_close(second(_windows(3)), _eager(second.model, _windows(3)))
    assert first._graphs.wanted is False
    said = [str(w.message) for w in recwarn if "windows need the memory" in str(w.message)]
    assert len(said) == 1
    assert len(second._graphs._choices) == 1  # it has none yet that takes memory
    monkeypatch.setattr(second._graphs, "_forward", lambda windows: _no_memory(OutOfMemoryError))
    with pytest.raises(OutOfMemoryError):
        second(_windows(3))


def _no_memory(kind: type[Exception]) -> Tensor:
    raise kind("CUDA out of memory")


def test_threads_share_a_graph(stand_in: list[Standing]) -> None:
    model = _model()
    network = TorchNetwork(model)
    network._graphs.wanted = True
    network(_windows(1))
    found: dict[int, list[Tensor]] = {}

    def work(seed: int) -> None:
        found[seed] = [network(_windows(1, seed)) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, all_of_them in found.items():
        expected = _eager(model, _windows(1, seed))
        assert all(torch.equal(logits, expected) for logits in all_of_them)


def test_a_cpu_has_no_graphs() -> None:
    model = _model()
    with pytest.raises(UserError, match="cuda_graph: got true, expected auto or false"):
        TorchNetwork(model, cuda_graph=True)
    network = TorchNetwork(model)
    for _ in range(3 * BEFORE_GRAPHS):
        network(_windows(1))
    assert len(network._graphs._choices) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("mirror", [False, True])
def test_a_gpu_predicts_the_same_with_and_without(
    mirror: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images in turns, whose last batches have other shapes, and weights that move."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = _model().cuda()
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(2, *size)).astype(np.float32) for size in ((70, 90), (50, 64))]
    options: dict[str, Any] = {"patch_size": (32, 32), "batch_size": 4, "mirror": mirror}
    plain = Predictor(model, cuda_graph=False, **options)
    auto, graphs = Predictor(model, **options), Predictor(model, cuda_graph=True, **options)
    for number in range(6):
        if number == 3:
            model.cpu().cuda()
            for p in model.parameters():
                p.data.mul_(1.1)
        expected = plain.probabilities(images[number % 2])
        for predictor in (auto, graphs):
            actual = predictor.probabilities(images[number % 2])
            assert np.linalg.norm(actual - expected) < 1e-4 * np.linalg.norm(expected)
    network = auto.members[0].network
    assert isinstance(network, TorchNetwork)
    assert 1 <= len(network._graphs._choices) <= MAX_GRAPHS


@pytest.mark.gpu
def test_a_model_that_cannot_be_captured_predicts(recwarn: pytest.WarningsRecorder) -> None:
    class Waiting(type(_model())):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Any:
            return super().forward(x * float(x.abs().max() < 1e9))

    model = _model().cuda()
    image = np.random.default_rng(0).normal(size=(2, 90, 90)).astype(np.float32)
    options: dict[str, Any] = {"patch_size": (16, 16), "batch_size": 4}
    expected = Predictor(model, cuda_graph=False, **options).probabilities(image)
    model.__class__ = Waiting
    actual = Predictor(model, **options).probabilities(image)
    np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-2)
    said = [str(w.message) for w in recwarn if "could not be captured" in str(w.message)]
    assert len(said) == 1
    assert torch.randn(3, device="cuda").isfinite().all()
