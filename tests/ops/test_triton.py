"""The Triton kernels' own cuts: tiles, splits of the sequence, ordered launches.

Under TRITON_INTERPRET=1 these run on the CPU; without it and without a GPU, a test starts them in
a process of their own, since Triton reads the variable when it is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from cases import (
    ScanCase,
    SS2DCase,
    cast_scan,
    cast_ss2d,
    check_function,
    differing,
    disturbed_runs,
    make_scan,
    make_ss2d,
    noise_like,
    with_gradients,
)
from torch import Tensor

import swin_umamba_ops as ops

pytest.importorskip("triton")
from swin_umamba_ops.backends import _triton_projection as projection
from swin_umamba_ops.backends import triton as backend
from swin_umamba_ops.backends import triton_sequence as sequence_backend
from swin_umamba_ops.backends.triton_kernels import (
    backward,
    forward,
    parameters,
    project,
    unspecialised,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def needs_kernels(test: Callable[..., None]) -> Callable[..., None]:
    """Where there is a GPU they run on it, and with `-m gpu`."""
    if DEVICE == "cuda":
        test = pytest.mark.gpu(test)
    why = "neither a GPU nor TRITON_INTERPRET=1"
    marked: Callable[..., None] = pytest.mark.skipif(
        backend.why_unusable() is not None, reason=why
    )(test)
    return marked


def check_ss2d(inputs: dict[str, Tensor]) -> None:
    """Against the reference, with all gradients."""
    check_function(
        partial(ops.ss2d, backend="triton"), partial(ops.ss2d, backend="reference"), inputs
    )


# Tiles that N and D fill, exceed and leave half empty.
TILES = {
    "four lanes a channel": backend.Tile(NH=2, NL=4, DH=1, DL=8, U=2),
    "one lane a channel": backend.Tile(NH=8, NL=1, DH=1, DL=32, U=4),
    "narrow": backend.Tile(NH=1, NL=8, DH=1, DL=4, U=1),
    "wide": backend.Tile(NH=2, NL=4, DH=4, DL=8, U=8),
}

# Programs make dt for halves; for float32 a kernel of its own does.
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)


@pytest.fixture(autouse=True)
def _passes_made_anew() -> Iterator[None]:
    """Tests change by what passes are cut, and passes are kept."""
    backend._pass_of.cache_clear()
    yield
    backend._pass_of.cache_clear()


def use_chunks(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Save a state every `length` steps."""
    for module in (backend, sequence_backend):
        monkeypatch.setattr(module, "chunk_length", length)


def use_tile(monkeypatch: pytest.MonkeyPatch, tile: Callable[[int, bool, bool], Any]) -> None:
    """Whatever the number of programs."""
    monkeypatch.setattr(backend, "scan_tile", tile)
    monkeypatch.setattr(backend, "wide_tile", lambda N, interpreted: tile(N, False, interpreted))


@needs_kernels
@pytest.mark.parametrize(
    ("name", "N"),
    [("four lanes a channel", 8), ("four lanes a channel", 5), ("one lane a channel", 8),
     ("narrow", 6), ("wide", 7)],
)  # fmt: skip
def test_tiles(name: str, N: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = TILES[name]
    use_tile(monkeypatch, lambda N, backwards, interpreted: tile)
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 9, 2, 3, N, 2)), torch.float32, DEVICE)
    check_ss2d(inputs)


@needs_kernels
@DTYPES
@pytest.mark.parametrize(
    ("N", "D", "wide"),
    [(1, 130, False), (2, 5, False), (16, 16, False), (16, 32, True), (13, 9, False),
     (13, 9, True), (64, 5, False), (64, 8, True)],
)  # fmt: skip
def test_tiles_of_a_gpu(
    N: int, D: int, wide: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter's own are larger."""
    forward = backend.wide_tile(N, False) if wide else backend.scan_tile(N, False, False)
    gpu = {False: forward, True: backend.scan_tile(N, True, False)}
    use_tile(monkeypatch, lambda N, backwards, _: gpu[backwards])
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, D, 2, 3, N, 2)), dtype, DEVICE)
    check_ss2d(inputs)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("R", [1, 2, 4, 17])
def test_pieces_in_which_a_projection_is_read(
    R: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single values, pairs or all of a lane's states, by what R leaves aligned."""
    tile = backend.scan_tile
    use_tile(monkeypatch, lambda N, backwards, _: tile(N, backwards, False))
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 16, 2, 3, 16, R)), dtype, DEVICE)
    check_ss2d(inputs)


@needs_kernels
@DTYPES
def test_images_of_many_values(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets within an image may take 64 bits."""
    monkeypatch.setattr(backend, "_INT32_VALUES", 0)
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 5, 2, 3, 4, 2)), dtype, DEVICE)
    check_ss2d(inputs)


@needs_kernels
def test_sequences_of_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """And offsets between the channels and groups of a batch entry may."""
    monkeypatch.setattr(backend, "_INT32_VALUES", 0)
    inputs = cast_scan(make_scan(ScanCase(1, 4, 9, 3, 2)), torch.float32, DEVICE)
    run = partial(ops.selective_scan, delta_softplus=True)
    check_function(partial(run, backend="triton"), partial(run, backend="reference"), inputs)


@needs_kernels
def test_images_that_lie_at_any_address() -> None:
    """Whole tiles are read several values at a time, where the memory is aligned for it."""
    case = cast_ss2d(make_ss2d(SS2DCase(1, 64, 3, 2, 16, 2)), torch.float16, DEVICE)
    x = case["x"].permute(0, 2, 3, 1).contiguous()
    shifted = torch.empty(x.numel() + 1, dtype=x.dtype, device=DEVICE)[1:].view(x.shape)
    case["x"] = shifted.copy_(x).permute(0, 3, 1, 2)
    check_ss2d(case)


@needs_kernels
@DTYPES
@pytest.mark.parametrize("size", [(3, 6), (9, 1)], ids=str)
def test_splits_of_an_image(
    size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "processors", lambda device: 1000)
    use_chunks(monkeypatch, 8)
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 2, *size, 2, 1)), dtype, DEVICE)
    check_ss2d(inputs)


@pytest.mark.parametrize(
    ("programs", "chunks", "splits"),
    [
        (1440, 200, 1),  # nearly all of the card at once
        (576, 512, 11),  # two would leave a quarter of it idle
        (48, 2048, 33),
        (48, 1, 1),
    ],
)
def test_number_of_splits(programs: int, chunks: int, splits: int) -> None:
    length = backend.split_chunks(programs, chunks, 1584, False)
    assert -(-chunks // length) == splits


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_interpreted", lambda: False)
    monkeypatch.setattr(backend, "processors", lambda device: 132)


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("backwards", "B", "size", "channels"),
    [(False, 12, 128, 32), (False, 1, 256, 32), (True, 1, 256, 32), (True, 2, 20, 16)],
)
def test_splits_pass_is_wide_unless_most_places_stay_empty(
    backwards: bool, B: int, size: int, channels: int
) -> None:
    layout = backend._image_layout((B, size, size, 192), 16, 6)
    plan = backend._Pass(layout, torch.device("cpu"), 2, backwards)
    assert plan.split_tile.channels == channels


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("backwards", "B", "size", "D", "channels"),
    [
        (False, 30, 80, 192, 16),  # wide programs would be so few that sequences were split
        (False, 30, 40, 384, 32),
        (False, 30, 20, 784, 16),  # which 32 does not divide
        (False, 1, 256, 192, 32),
        (True, 30, 40, 384, 16),
        (True, 1, 256, 192, 16),
    ],
)
def test_wide_tiles_where_programs_are_many_or_sequences_split(
    backwards: bool, B: int, size: int, D: int, channels: int
) -> None:
    layout = backend._image_layout((B, size, size, D), 16, 6)
    plan = backend._Pass(layout, torch.device("cpu"), 2, backwards)
    assert plan.tile.channels == channels


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize(
    ("backwards", "B", "size", "parts"),
    # The scan forwards is cut into twice as many programs: its tile is wide too.
    [(True, 1, 256, 2), (True, 2, 80, 2), (False, 1, 256, 1), (False, 30, 80, 1)],
)
def test_splits_pass_fills_the_gpu(backwards: bool, B: int, size: int, parts: int) -> None:
    layout = backend._image_layout((B, size, size, 192), 16, 6)
    plan = backend._Pass(layout, torch.device("cpu"), 2, backwards)
    assert plan.parts == parts


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(3, 11), (4, 8)], ids=str)
def test_splits_in_parts(
    size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which the last ones have no steps where an image does not fill them."""
    monkeypatch.setattr(backend, "processors", lambda device: 1)
    monkeypatch.setattr(backend, "_PROGRAMS_PER_PROCESSOR", 8)
    use_chunks(monkeypatch, 8)
    monkeypatch.setattr(backend, "split_chunks", lambda *_: 3)
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 2, *size, 2, 1)), dtype, DEVICE)
    plan = backend._Pass(backend._image_layout((1, *size, 2), 2, 1), torch.device(DEVICE), 2, True)
    assert (plan.splits, plan.parts) == (2, 2)
    check_ss2d(inputs)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_gradients_of_the_projection(dtype: torch.dtype) -> None:
    """Of several blocks of positions, of channels and of low ranks, none of them whole."""
    B, L, D, R, N = 2, 75, 70, 66, 3
    torch.manual_seed(0)
    ddt, proj, weight = (
        torch.randn(shape, device=DEVICE).to(dtype)
        for shape in ((4, B, L, D), (B, L, 4, R + 2 * N), (4, D, R))
    )
    dmaps = torch.randn(B, L, 4, 2 * N, device=DEVICE)
    dproj, dweight = projection.project_backward(ddt, dmaps, proj, weight, True)
    expected_proj = torch.cat(
        [torch.einsum("kbld,kdr->blkr", ddt.double(), weight.double()), dmaps.double()], dim=-1
    )
    expected_weight = torch.einsum("kbld,blkr->kdr", ddt.double(), proj[..., :R].double())
    close = partial(
        torch.testing.assert_close, rtol=1e-5 if dtype == torch.float32 else 2e-3, atol=1e-4
    )
    for got, expected in ((dproj, expected_proj), (dweight, expected_weight)):
        assert got.dtype == dtype
        close(got.double(), expected.to(dtype).double())


@needs_kernels
@pytest.mark.parametrize("softplus", [True, False])
def test_splits_of_a_sequence(softplus: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "processors", lambda device: 1000)
    use_chunks(monkeypatch, 8)
    inputs = cast_scan(make_scan(ScanCase(1, 4, 18, 3, 2)), torch.float32, DEVICE)
    inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs(), inputs["delta_bias"].abs()

    def scan(backend: str, *tensors: Tensor) -> Tensor:
        out, last = ops.selective_scan(*tensors, softplus, True, backend=backend)
        return torch.cat([out.flatten(), last.flatten()])

    check_function(partial(scan, "triton"), partial(scan, "reference"), inputs)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_launches_agree_and_repeat(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tile(monkeypatch, lambda N, backwards, interpreted: TILES["narrow"])
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    inputs = cast_ss2d(make_ss2d(SS2DCase(1, 6, 2, 3, 4, 2)), dtype, DEVICE)
    gradient = noise_like(inputs["x"])
    run = partial(ops.ss2d, backend="triton")
    torch.use_deterministic_algorithms(True)
    try:
        assert not differing(disturbed_runs(partial(with_gradients, run, inputs, gradient), 2))
        check_function(run, partial(ops.ss2d, backend="reference"), inputs)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("kernel", "pointers"),
    [
        (forward.forward_kernel, "x dt bc weight bias A y states last split_state split_dt"),
        (forward.split_kernel, "x dt bc weight bias A split_state split_dt"),
        (
            backward.backward_kernel,
            "dy x dt bc A states scratch dlast dx ddt dbc sums split_state split_dt",
        ),
        (project.image_kernel, "proj weight bias dt maps dmaps"),
        (project.image_gradient_kernel, "ddt dmaps proj weight dproj dweight"),
        (parameters.skip_kernel, "x Ds y"),
        (parameters.sums_kernel, "sums A_logs dA dbias dDs"),
        (parameters.total_kernel, "parts total"),
    ],
)
def test_no_size_or_stride_is_compiled_in(kernel: object, pointers: str) -> None:
    parameters = inspect.signature(kernel.fn).parameters.values()  # type: ignore[attr-defined]
    numbers = {p.name for p in parameters if p.annotation is inspect.Parameter.empty}
    assert numbers - set(pointers.split()) <= {
        *unspecialised.SCAN, *unspecialised.PROJECT, *unspecialised.PARAMETERS
    }  # fmt: skip


@needs_kernels
@pytest.mark.parametrize("wanted", ["x", "x and dt_projs_weight", "all"])
def test_no_kernel_sums_what_nobody_wants(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen encoder's scans launch nothing for the gradients of its parameters."""
    case = SS2DCase(1, 5, 3, 4, 2, 2)
    leaves = {name: t.float().to(DEVICE) for name, t in make_ss2d(case).items()}
    for name, t in leaves.items():
        t.requires_grad_(wanted == "all" or name in wanted.split(" and "))
    sums: list[Any] = []

    def watched(kernel: Any, grid: Any, arguments: Any, *others: Any) -> Any:
        if kernel in (parameters.sums_kernel, parameters.total_kernel):
            sums.append(kernel)
        return launch(kernel, grid, arguments, *others)

    launch = backend.launch
    monkeypatch.setattr(backend, "launch", watched)
    monkeypatch.setattr(projection, "launch", watched)
    y = ops.ss2d(**leaves, backend="triton").square().sum()
    torch.autograd.grad(y, [t for t in leaves.values() if t.requires_grad])
    assert (
        sums
        == {
            "x": [],
            "x and dt_projs_weight": [parameters.total_kernel],
            "all": [parameters.sums_kernel, parameters.total_kernel],
        }[wanted]
    )


def test_says_what_it_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert backend.why_unsupported(gpu, torch.bfloat16, 16) is None
    assert "not torch.float64" in str(backend.why_unsupported(gpu, torch.float64, 16))
    assert "up to 256 states" in str(backend.why_unsupported(gpu, torch.float32, 257))
    monkeypatch.setattr(backend, "_interpreted", lambda: False)
    assert "not on cpu" in str(backend.why_unsupported(torch.device("cpu"), torch.float32, 16))
