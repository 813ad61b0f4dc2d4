"""What only the CUDA kernels have: the image kernels' shapes, splits, streams, graphs, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
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
    relative_error,
    with_gradients,
)
from torch import Tensor

import swin_umamba_ops as ops
from swin_umamba_ops import backends
from swin_umamba_ops.backends import cuda
from swin_umamba_ops.backends._cuda_launch import chunk_length, compiled, make_plan
from swin_umamba_ops.backends._cuda_reduction import GradientReduction

pytestmark = pytest.mark.gpu

ss2d = partial(ops.ss2d, backend="cuda")
selective_scan = partial(ops.selective_scan, backend="cuda")
SCAN_REFERENCE = partial(ops.selective_scan, backend="reference")
# D in whole vectors and R even: the kernels that make dt themselves. Parts of a block and of a
# tile, one step, one row, one column, every N that has such a kernel, ranks of one to six blocks.
IMAGE_CASES = (
    SS2DCase(1, 8, 1, 1, 16, 2),
    SS2DCase(2, 64, 12, 9, 16, 6),
    SS2DCase(1, 72, 1, 33, 16, 4),
    SS2DCase(2, 40, 31, 1, 16, 8),
    SS2DCase(1, 200, 17, 13, 16, 14),
    SS2DCase(2, 96, 20, 20, 16, 24),
    SS2DCase(1, 128, 10, 10, 16, 48),
    SS2DCase(1, 136, 9, 13, 1, 4),
    SS2DCase(1, 8, 1, 1, 1, 2),
    SS2DCase(1, 40, 1, 70, 1, 4),
    SS2DCase(2, 40, 9, 13, 1, 6),
    SS2DCase(2, 72, 17, 31, 1, 14),
    SS2DCase(1, 24, 17, 13, 1, 24),
    SS2DCase(1, 56, 17, 13, 1, 48),
    SS2DCase(1, 40, 9, 13, 1, 52),
    SS2DCase(1, 40, 9, 13, 4, 6),
    SS2DCase(1, 40, 9, 13, 8, 6),
    SS2DCase(1, 40, 9, 13, 32, 6),
    SS2DCase(1, 24, 9, 13, 64, 6),
)
# Whole pieces of four steps, 9 to 16 states: the kernels of rows of steps. Parts of a tile and of
# a block, several groups, few channels over many steps.
SEQUENCE_CASES = (
    ScanCase(1, 1, 4, 16),
    ScanCase(2, 24, 32, 16, 2),
    ScanCase(1, 70, 100, 16),
    ScanCase(2, 200, 68, 12, 2),
    ScanCase(1, 64, 1028, 16),
    ScanCase(1, 8, 4096, 9),
)
# Sizes that none of those kernels has, padded with zeros to those that one has.
PADDED_CASES = (
    SS2DCase(1, 96, 9, 13, 1, 3),
    SS2DCase(1, 96, 9, 13, 16, 3),
    SS2DCase(2, 40, 9, 13, 2, 5),
    SS2DCase(1, 40, 9, 13, 12, 1),
    SS2DCase(1, 24, 9, 13, 33, 6),
)
LONG = SS2DCase(1, 64, 61, 67, 16, 4)  # few channels, many steps: cut into splits
LONG_ONE_STATE = SS2DCase(1, 64, 61, 67, 1, 4)
LONG_STRIDED = SS2DCase(1, 36, 61, 67, 16, 4)  # rows of channels not in whole pieces


@pytest.fixture(autouse=True)
def _usable() -> None:
    if (reason := backends.why_unusable("cuda")) is not None:
        pytest.skip(reason)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _inputs(case: SS2DCase, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    inputs = cast_ss2d(make_ss2d(case), dtype, "cuda")
    inputs["x"] = inputs["x"].contiguous(memory_format=torch.channels_last)
    return inputs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", IMAGE_CASES, ids=str)
def test_image_kernels(case: SS2DCase, dtype: torch.dtype) -> None:
    check_function(ss2d, partial(ops.ss2d, backend="reference"), _inputs(case, dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", PADDED_CASES, ids=str)
def test_padded_sizes(case: SS2DCase, dtype: torch.dtype) -> None:
    check_function(ss2d, partial(ops.ss2d, backend="reference"), _inputs(case, dtype))


# Warps of channels, tiles of a block, splits, and blocks of a cluster.
CUTS = [
    *((1, 1, 1, 1), (3, 2, 1, 1), (1, 3, 1, 1), (4, 1, 3, 1), (2, 2, 4, 1), (3, 4, 1, 1)),
    *((1, 1, 1, 2), (4, 2, 1, 4), (3, 3, 1, 3), (2, 4, 1, 8)),
]


@pytest.fixture(params=CUTS, ids=str)
def one_state_cut(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Images with one state cut in all ways: warps of channels by tiles, splits, and clusters."""
    *_, splits, cluster = request.param
    if cluster > 1 and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("this GPU has no clusters")

    def cut(*args: Any, **fields: int) -> Any:
        plan = make_plan(*args, **fields)
        plan.one_state, plan.one_state_tiles = request.param[:2]
        plan.one_state_blocks = cluster
        if plan.shared_bytes() > compiled().max_shared_bytes(0):
            pytest.skip("so many tiles want more shared memory than a block of this GPU has")
        plan.blocks = plan.channel_blocks()
        tiles = -(-plan.H * plan.W // chunk_length)
        plan.tiles_per_split = -(-tiles // splits)
        plan.splits = -(-tiles // plan.tiles_per_split)
        return plan

    monkeypatch.setattr(cuda, "make_plan", cut)
    cuda._ss2d_plan.cache_clear()
    yield
    cuda._ss2d_plan.cache_clear()


@pytest.mark.usefixtures("one_state_cut")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("R", [5, 6, 24])
def test_one_state_cut_in_all_ways(R: int, dtype: torch.dtype) -> None:
    inputs = _inputs(SS2DCase(2, 72, 17, 23, 1, R), dtype)
    check_function(ss2d, partial(ops.ss2d, backend="reference"), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", SEQUENCE_CASES, ids=str)
def test_sequence_kernels(case: ScanCase, dtype: torch.dtype) -> None:
    inputs = cast_scan(make_scan(case), dtype, "cuda")
    scan = partial(selective_scan, delta_softplus=True)
    check_function(scan, partial(SCAN_REFERENCE, delta_softplus=True), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_sequence_kernels_without_optional_inputs(dtype: torch.dtype) -> None:
    inputs = cast_scan(make_scan(ScanCase(2, 70, 100, 16)), dtype, "cuda")
    few = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    few["delta"] = few["delta"].abs()
    check_function(selective_scan, SCAN_REFERENCE, few)


def test_rows_of_steps_that_start_anywhere() -> None:
    """Views into other tensors are copied, with the same results."""
    inputs = cast_scan(make_scan(ScanCase(1, 64, 128, 16)), torch.float16, "cuda")
    expected = selective_scan(**inputs, delta_softplus=True)
    for name in ("u", "delta", "B", "C"):
        apart = torch.cat([inputs[name].new_zeros(1), inputs[name].flatten()])[1:]
        apart = apart.view(inputs[name].shape)
        assert apart.data_ptr() % 16 != 0
        actual = selective_scan(**{**inputs, name: apart}, delta_softplus=True)
        assert relative_error(actual, expected) < 1e-3


@pytest.mark.parametrize("N", [65, 128, 256])
def test_many_states(N: int) -> None:
    case = SS2DCase(1, 6, 5, 7, N, 2)
    check_function(ss2d, partial(ops.ss2d, backend="reference"), _inputs(case, torch.float32))


def test_more_states_than_any_kernel_takes_are_refused() -> None:
    with pytest.raises(RuntimeError, match="256 states"):
        ss2d(**_inputs(SS2DCase(1, 2, 2, 2, 257, 1), torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", [LONG, LONG_ONE_STATE, LONG_STRIDED], ids=str)
def test_splits_agree_with_one_piece(case: SS2DCase, dtype: torch.dtype) -> None:
    check_function(ss2d, partial(ops.ss2d, backend="pytorch"), _inputs(case, dtype))


def test_a_split_is_chosen_for_few_channels_and_long_sequences() -> None:
    inputs = _inputs(LONG)
    x = inputs["x"]
    shape = x.permute(0, 2, 3, 1).shape
    plan, makes_dt = cuda._ss2d_plan("FORWARD", x.device, x.dtype, shape, LONG.N, LONG.R)
    assert makes_dt
    assert plan.splits > 1


@pytest.fixture(params=[(1, 2), (1, 5), (3, 4)], ids="{0[0]} splits {0[1]} segments".format)
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every pass cut into splits of segments, as else only large ones are; the last ragged."""

    def cut(*args: object, **fields: object) -> object:
        plan = make_plan(*args, **fields)  # type: ignore[arg-type]
        tiles = -(-plan.H * plan.W // chunk_length)
        plan.tiles_per_split = -(-tiles // request.param[0])
        plan.splits = -(-tiles // plan.tiles_per_split)
        plan.tiles_per_segment = -(-plan.tiles_per_split // request.param[1])
        plan.segments = -(-plan.tiles_per_split // plan.tiles_per_segment)
        plan.min_shared_bytes = 0
        assert plan.segments > 1
        return plan

    plans = (cuda._ss2d_plan, cuda._sequence_plan)
    monkeypatch.setattr(cuda, "make_plan", cut)
    for plan in plans:
        plan.cache_clear()
    yield
    for plan in plans:
        plan.cache_clear()


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("N", [1, 8, 16, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_segments_agree_with_one_piece(N: int, dtype: torch.dtype) -> None:
    """More blocks than run at a time, so that some wait and some take the place of others."""
    case = SS2DCase(2, 520, 17, 31, N, 6)
    check_function(ss2d, partial(ops.ss2d, backend="pytorch"), _inputs(case, dtype))


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_segments_of_sequences_agree_with_one_piece(dtype: torch.dtype) -> None:
    """The last state and its gradient too."""

    def both(scan: Callable[..., tuple[Tensor, Tensor]], *inputs: Tensor) -> Tensor:
        out, last = scan(*inputs, delta_softplus=True, return_last_state=True)
        return torch.cat([out.to(last.dtype), last], dim=2)

    inputs = cast_scan(make_scan(ScanCase(2, 72, 516, 16, 3)), dtype, "cuda")
    check_function(partial(both, selective_scan), partial(both, SCAN_REFERENCE), inputs)


@pytest.mark.usefixtures("deterministic", "segments")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_deterministic_mode_takes_ranges_whole(dtype: torch.dtype) -> None:
    """One launch for each set of sums: none is cut into segments."""
    case = SS2DCase(2, 136, 17, 31, 16, 6)
    check_function(ss2d, partial(ops.ss2d, backend="pytorch"), _inputs(case, dtype))


@pytest.mark.usefixtures("segments")
def test_segments_in_a_graph_count_from_zero_each_time() -> None:
    inputs = _inputs(SS2DCase(2, 136, 17, 31, 16, 6))
    expected = ss2d(**inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ss2d(**inputs)
    for _ in range(3):
        captured.zero_()
        graph.replay()
        assert relative_error(captured, expected) < 1e-5


def test_segments_are_chosen_where_blocks_fill_the_device_unevenly() -> None:
    properties = torch.cuda.get_device_properties("cuda")
    B = 1 + properties.multi_processor_count // 4  # four blocks of channels an image, and some
    case = SS2DCase(B, 64, 64, 64, 16, 4)
    x = torch.empty(B, 64, 64, 64, dtype=torch.float16, device="cuda")
    plan, _ = cuda._ss2d_plan("FORWARD", x.device, x.dtype, x.shape, case.N, case.R)
    assert plan.segments > 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    "case",
    [SS2DCase(2, 136, 13, 17, 16, 6), LONG, SS2DCase(2, 136, 13, 17, 1, 6), LONG_ONE_STATE],
    ids=str,
)
def test_deterministic_mode_repeats_bitwise(case: SS2DCase, dtype: torch.dtype) -> None:
    """Beside other work, which changes the order of blocks, and where ordinary launches differ."""
    inputs = _inputs(case, dtype)
    gradient = noise_like(inputs["x"])
    ordinary = disturbed_runs(partial(with_gradients, ss2d, inputs, gradient), 20)
    torch.use_deterministic_algorithms(True)
    try:
        assert not differing(disturbed_runs(partial(with_gradients, ss2d, inputs, gradient), 8))
    finally:
        torch.use_deterministic_algorithms(False)
    if not differing(ordinary):
        pytest.skip("ordinary launches repeat bitwise too: nothing is shown")


def test_graph_capture_replays_with_new_values() -> None:
    inputs = _inputs(SS2DCase(2, 64, 16, 16, 16, 4))
    leaves = {name: t.requires_grad_() for name, t in inputs.items()}
    gradient = noise_like(inputs["x"]).cuda()

    def step() -> tuple[Tensor, ...]:
        y = ss2d(**leaves)
        return (y.detach(), *torch.autograd.grad(y, list(leaves.values()), gradient))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaves["x"].normal_()
    graph.replay()
    for replayed, eager in zip(captured, step(), strict=True):
        assert relative_error(replayed, eager) < 1e-3  # the order of additions differs


def test_side_stream() -> None:
    """The scan waits for what its stream has queued: before, its input is another image."""
    inputs = _inputs(SS2DCase(2, 64, 40, 40, 16, 4))
    expected = ss2d(**inputs)
    late = inputs | {"x": torch.zeros_like(inputs["x"])}
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late["x"].copy_(inputs["x"])
        actual = ss2d(**late)
    side.synchronize()
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_device_without_making_it_current() -> None:
    inputs = _inputs(SS2DCase(2, 64, 12, 9, 16, 6))
    gradient = noise_like(inputs["x"])
    expected = with_gradients(ss2d, inputs, gradient)
    elsewhere = {name: t.to("cuda:1") for name, t in inputs.items()}
    actual = with_gradients(ss2d, elsewhere, gradient)
    for name, value in actual.items():
        assert value.device == torch.device("cuda:1")
        assert relative_error(value, expected[name]) < 1e-3


def test_more_blocks_than_a_grid_axis_holds() -> None:
    """B * D > 65535, and every image the same: so must the results be."""
    inputs = _inputs(SS2DCase(1, 8, 3, 5, 16, 2))
    inputs["x"] = inputs["x"].expand(9000, -1, -1, -1)
    y = ss2d(**inputs)
    assert relative_error(y, y[:1].expand_as(y)) < 1e-5


@pytest.mark.slow
def test_more_than_2_to_the_31_elements() -> None:
    """The same image 520 times over in 2.3e9 elements: the last one's results equal the first's."""
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 60e9:
        pytest.skip("needs 60 GB of free GPU memory")
    inputs = _inputs(SS2DCase(1, 192, 152, 152, 4, 2))
    few = with_gradients(ss2d, inputs, torch.ones_like(inputs["x"], dtype=torch.float32))
    x = inputs["x"].expand(520, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = ss2d(**{**inputs, "x": x})
    assert x.numel() > 2**31
    assert relative_error(y[-1], few["out"][0]) < 1e-5
    (dx,) = torch.autograd.grad(y, x, torch.ones((), device="cuda").expand_as(y))
    assert relative_error(dx[-1], few["dx"][0]) < 1e-3


def test_every_element_of_the_output_is_written_or_summed_from_zero() -> None:
    """Memory that held NaN before comes back without."""
    case = SS2DCase(2, 72, 9, 13, 16, 6)
    inputs = _inputs(case)
    for _ in range(3):
        torch.full((64_000_000,), float("nan"), device="cuda")
        results = with_gradients(ss2d, inputs, noise_like(inputs["x"]))
        assert all(torch.isfinite(t).all() for t in results.values())


def _memory(address: int, shape: tuple[int, ...]) -> Tensor:
    """The float32 values that lie at an address."""
    interface = {"shape": shape, "typestr": "<f4", "data": (address, False), "version": 3}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device="cuda")


@pytest.mark.parametrize("rows", [1, 2, 7, 300])
def test_sums_of_a_backward_pass(rows: int) -> None:
    """Vectors and single values, cast or not, all in one launch."""
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    shapes = ((4, 8), (5,), (3, 1027), (2, 512))
    device = torch.device("cuda", torch.cuda.current_device())
    for dtype in dtypes:
        results = [torch.full(shape, torch.nan, device=device, dtype=dtype) for shape in shapes]
        reduction = GradientReduction(tuple(results[:2]), tuple(results[2:]), rows)
        expected = []
        for i, (result, address) in enumerate(zip(results, reduction.addresses, strict=True)):
            assert address % 16 == 0
            summands = _memory(address, (1 if i < 2 else rows, *result.shape))
            assert not summands.any()
            scale = 1.0 if i < 2 else 1.0 / compiled().SUM_SCALE
            summands.copy_(noise_like(summands) / scale)
            expected.append((scale * summands.double().sum(0)).to(dtype))
        reduction.finish()
        for result, total in zip(results, expected, strict=True):
            torch.testing.assert_close(result, total)


def test_only_large_results_in_float32_are_their_own_sums() -> None:
    large, half = (
        torch.ones(7, device="cuda", dtype=dtype) for dtype in (torch.float32, torch.half)
    )
    small = torch.ones(7, device="cuda")
    addresses = GradientReduction((large, half), (small,), 1).addresses
    assert addresses[0] == large.data_ptr()
    assert not large.any()
    assert not {half.data_ptr(), small.data_ptr()} & set(addresses)


def test_a_gradient_of_the_last_state_that_starts_inside_another_tensor() -> None:
    """As in a concatenation of out and the last state: 12 bytes behind a multiple of 16."""
    inputs = cast_scan(make_scan(ScanCase(1, 3, 5, 16)), torch.float32, "cuda")

    def both(scan: Callable[..., tuple[Tensor, Tensor]], *values: Tensor) -> Tensor:
        out, last = scan(*values, delta_softplus=True, return_last_state=True)
        return torch.cat([out.flatten(), last.flatten()])

    assert 4 * inputs["u"].numel() % 16 == 12
    check_function(partial(both, selective_scan), partial(both, SCAN_REFERENCE), inputs)
