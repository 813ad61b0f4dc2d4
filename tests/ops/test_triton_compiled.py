"""What Triton makes of the scan's kernels for a GPU, seen without one.

Their layout is claimed, not written (triton_kernels/tile.py): where a release of Triton takes the
claims otherwise, values are rearranged through shared memory at each step.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from swin_umamba_ops.backends import _launch_cache
from swin_umamba_ops.inputs import (
    DepthwiseConvSiluInputs,
    InstanceNormActInputs,
    LayerNormInputs,
    MlpGeluInputs,
    SegmentationSumsInputs,
    SS2DInputs,
)

triton = pytest.importorskip("triton")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled"),
    pytest.mark.skipif(
        importlib.util.find_spec("triton.backends.nvidia") is None,
        reason="this Triton does not compile for NVIDIA's GPUs",
    ),
]

HALF = {"x", "weight", "ddt"}


def _compiled(direction: str, N: int, wide: bool = False, **options: int) -> Any:
    from swin_umamba_ops.backends import triton as backend
    from swin_umamba_ops.backends.triton_kernels import backward, forward

    kernel, backwards, own = {
        "forward": (forward.forward_kernel, False, {"SAVE": True, "STAGED": True, "PIECE": 4}),
        "split": (forward.split_kernel, False, {"STAGED": True, "BACKWARD": False, "PIECE": 4}),
        "split backward": (forward.split_kernel, False, {"STAGED": False, "BACKWARD": True}),
        "backward": (backward.backward_kernel, True, {"SOFTPLUS": True}),
    }[direction]
    tile = backend.wide_tile(N, False) if wide else backend.scan_tile(N, backwards, False)
    if "split" in direction:
        tile = backend.split_tile(N, False)
    constants = {
        "N": N, "NH": tile.NH, "NL": tile.NL, "DH": tile.DH, "DL": tile.DL, "U": tile.U,
        "T": backend.chunk_length, "EVEN": True, "ALIGN": 16, "PIECE": 16, "INDEX_64BIT": False,
        "IMAGE": True, "LAST": False, "SPLIT": False, "WHOLE": True, **own, **options,
    }  # fmt: skip
    half = HALF | ({"bc"} if constants.get("STAGED") else set())
    compiling = {
        "num_warps": 1, "enable_fp_fusion": True, "maxnreg": backend._MAX_REGISTERS
    }  # fmt: skip
    return _compile(
        kernel, "D", constants, compiling, lambda name: "fp16" if name in half else "fp32"
    )


def _compile(
    kernel: Any, first_number: str, constants: Mapping[str, Any], options: Mapping[str, Any],
    dtype: Callable[[str], str],
) -> Any:  # fmt: skip
    """For an H100; with aligned pointers of these dtypes, which come before the first number."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    pointers = names[: names.index(first_number)]

    def kind(name: str) -> str:
        if name in pointers:
            return "*" + dtype(name)
        return "constexpr" if name in constants else "i32"

    source = ASTSource(
        kernel,
        {name: kind(name) for name in names},
        {(i,): constants[name] for i, name in enumerate(names) if name in constants},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in pointers},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def _read(compiled: Any, folder: Path, what: str) -> str:
    """What cuobjdump tells of it."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, what, str(binary)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _stack(compiled: Any, folder: Path) -> int:
    """Bytes a lane that went to memory for want of registers."""
    return int(_read(compiled, folder, "-res-usage").partition("STACK:")[2].split()[0])


DIRECTIONS = pytest.mark.parametrize(
    "direction", ["forward", "split", "split backward", "backward"]
)


@pytest.mark.parametrize(
    ("direction", "wide"),
    [("forward", False), ("forward", True), ("split", False), ("split backward", False),
     ("backward", False)],
)  # fmt: skip
@pytest.mark.parametrize("N", [1, 8, 16, 64])
def test_nothing_is_spilled_and_no_step_goes_through_shared_memory(
    direction: str, wide: bool, N: int, tmp_path: Path
) -> None:
    compiled = _compiled(direction, N, wide)
    if N == 16:
        # Of a chunk's own dt: the operands of a matrix product.
        assert compiled.metadata.shared <= (0 if "back" in direction else 2048)
        assert "ld.global.v4" in compiled.asm["ptx"]
    # Backwards at N = 1: two values, which no step reads.
    assert _stack(compiled, tmp_path) <= (8 if (direction, N) == ("backward", 1) else 0)


def test_checkpoints_fill_whole_lines(tmp_path: Path) -> None:
    """Of a lane's eight states the store of the last four lies 512 bytes behind that of the others:
    all lanes' are next to each other."""
    sass = _read(_compiled("backward", 16), tmp_path, "-sass")
    stores = re.findall(r"STG\.E\.\S*128 (?:desc\[\w+\])?\[\w+\.64(\+0x\w+)?\]", sass)
    assert "+0x200" in stores
    assert "+0x10" not in stores


@DIRECTIONS
@pytest.mark.parametrize(("N", "far"), [(5, False), (16, False), (16, True)])
def test_ragged_sequences_with_a_last_state_compile(direction: str, N: int, far: bool) -> None:
    """Types must agree on both sides of a branch, which the interpreter does not ask for."""
    _compiled(
        direction, N, EVEN=False, ALIGN=0, PIECE=0, IMAGE=False, STAGED=False, LAST=True,
        SPLIT=True, WHOLE=False, INDEX_64BIT=far,
    )  # fmt: skip


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float16, "fp16"), (torch.float32, "fp32")])
@pytest.mark.parametrize("R", [6, 24, 48])
def test_the_projections_gradients_spill_nothing(
    R: int, dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of float32 larger blocks would, by kilobytes."""
    from swin_umamba_ops.backends import _triton_projection as projection

    launches: list[tuple[Any, ...]] = []
    monkeypatch.setattr(projection, "launch", lambda *launch: launches.append(launch))
    B, L, D, N = 1, 4, 32 * R, 16
    projection.project_backward(
        torch.empty(4, B, L, D, dtype=dtype), torch.empty(B, L, 4, 2 * N),
        torch.empty(B, L, 4, R + 2 * N, dtype=dtype), torch.empty(4, D, R, dtype=dtype), True,
    )  # fmt: skip
    kernel, _, _, constants, options = launches[0]
    compiled = _compile(
        kernel, "rows", constants, options,
        lambda name: "fp32" if name in ("dmaps", "dweight") else kind,
    )  # fmt: skip
    assert _stack(compiled, tmp_path) == 0


@pytest.mark.parametrize("C", [96, 384])
def test_the_hidden_layers_kernels_spill_nothing(
    C: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And multiply by the matrix unit."""
    from swin_umamba_ops.backends import triton_mlp

    launches: list[tuple[Any, ...]] = []
    monkeypatch.setattr(triton_mlp, "launch", lambda *launch: launches.append(launch))
    x = torch.empty(4, C, dtype=torch.float16)
    parameters = torch.empty(4 * C, C), torch.empty(4 * C), torch.empty(C, 4 * C), torch.empty(C)
    inputs = MlpGeluInputs(x, *parameters)
    triton_mlp.mlp_gelu_forward(inputs)
    triton_mlp.mlp_gelu_backward(x, inputs)
    for kernel, _, _, constants, options in launches:
        constants = {**constants, "UPCAST": False}
        compiled = _compile(
            kernel, "M", constants, options, lambda name: "fp32" if name == "sums" else "fp16"
        )
        assert _stack(compiled, tmp_path) == 0
        assert "wgmma" in compiled.asm["ptx"]


class _Utils:
    def load_binary(self, *binary: Any) -> tuple[int, ...]:
        return 1, 2, 100, 0, 1024  # module, function, registers, spills, threads

    def unload_module(self, module: int) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}


class _Driver:
    """A GPU whose launches are recorded, on which nothing runs."""

    utils = _Utils()

    def __init__(self) -> None:
        self.launches: list[list[Any]] = []

    def get_current_device(self) -> int:
        return 99  # whose kernels no other test takes for its own

    def get_current_stream(self, device: int) -> int:
        return 7

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(*arguments: Any) -> None:
            self.launches.append(
                # Less what Triton tells of them to its hooks, and these.
                [
                    (t.shape, t.dtype) if isinstance(t, torch.Tensor) else t
                    for t in (*arguments[:6], *arguments[9:])
                ]
            )

        return launch


_NOTING = _Driver()  # one for all: what Triton compiled keeps its launcher


@pytest.fixture
def cached_as_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[], object]], int]]:
    """Runs what is given twice: through Triton, then from the cache; the number of launches."""
    monkeypatch.setattr(triton.runtime.driver, "_active", _NOTING)
    _launch_cache._COMPILED.clear()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Triton is asked again")

    def check(calls: Callable[[], object]) -> int:
        _NOTING.launches.clear()
        calls()
        compiling = list(_NOTING.launches)
        _NOTING.launches.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(triton.runtime.JITFunction, "run", refuse)
            calls()
        assert compiling == _NOTING.launches
        return len(compiling)

    yield check
    _launch_cache._COMPILED.clear()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_cached_launches_are_as_triton_would(
    dtype: torch.dtype,
    cached_as_compiled: Callable[[Callable[[], object]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from swin_umamba_ops.backends import triton as backend

    monkeypatch.setattr(backend, "processors", lambda device: 132)
    backend._pass_of.cache_clear()
    B, H, W, D, N, R = 1, 16, 8, 32, 16, 6
    x, proj = torch.randn(B, H, W, D).to(dtype), torch.randn(B, H, W, 4, R + 2 * N).to(dtype)
    inputs = SS2DInputs(
        x, proj, torch.randn(4, D, R).to(dtype), torch.randn(4, D), torch.randn(4 * D, N),
        torch.randn(4 * D),
    )  # fmt: skip

    def both() -> None:
        y, states = backend.ss2d_forward(inputs, torch.float32, True)
        backend.ss2d_backward(y, inputs, states)

    assert cached_as_compiled(both) == (10 if dtype == torch.float16 else 11)
    backend._pass_of.cache_clear()


@pytest.mark.parametrize("sides", [(8, 16), (7, 9)], ids=str)
@pytest.mark.parametrize("C", [16, 5])
def test_cached_launches_around_the_scan_are_as_triton_would(
    C: int, sides: tuple[int, int], cached_as_compiled: Callable[[Callable[[], object]], int]
) -> None:
    """With sizes that Triton specializes on, and others."""
    from swin_umamba_ops.backends import (
        triton_depthwise,
        triton_instance_norm,
        triton_layer_norm,
        triton_segmentation,
    )

    x, dy = (torch.randn(1, *sides, C, dtype=torch.float16) for _ in range(2))
    weight, bias, taps = torch.randn(C), torch.randn(C), torch.randn(C, 1, 3, 3)

    def all_of_them() -> None:
        norm = LayerNormInputs(x, x, weight, bias, 1e-5, torch.float16)
        triton_layer_norm.layer_norm_forward(norm)
        triton_layer_norm.layer_norm_backward(dy, norm._replace(gate=None))
        depthwise = DepthwiseConvSiluInputs(x, taps, bias)
        triton_depthwise.depthwise_conv_silu_forward(depthwise)
        triton_depthwise.depthwise_conv_silu_backward(dy, depthwise)
        instance_norm = InstanceNormActInputs(x, weight, bias, x, 2, 1e-5, 0.01)
        _, stats = triton_instance_norm.instance_norm_act_forward(instance_norm)
        triton_instance_norm.instance_norm_act_backward(dy, instance_norm, stats)
        sums = SegmentationSumsInputs(
            x.permute(0, 3, 1, 2), torch.zeros(1, *sides, dtype=torch.int64)
        )
        dsums = triton_segmentation.segmentation_sums_forward(sums)
        triton_segmentation.segmentation_sums_backward(dsums, sums)

    assert cached_as_compiled(all_of_them) == 12


def test_sizes_that_triton_specialises_on_have_kernels_of_their_own(
    cached_as_compiled: Callable[[Callable[[], object]], int],
) -> None:
    """One compiled for multiples of sixteen would read past the end of others."""
    from swin_umamba_ops.backends import triton_layer_norm

    def norm(C: int) -> None:
        x = torch.randn(1, 4, 4, C, dtype=torch.float16)
        triton_layer_norm.layer_norm_forward(
            LayerNormInputs(x, None, torch.ones(C), torch.ones(C), 1e-5, x.dtype)
        )

    assert cached_as_compiled(lambda: norm(32)) == 1
    kernels = len(_launch_cache._COMPILED)
    assert cached_as_compiled(lambda: norm(30)) == 1  # as many columns of a program
    assert len(_launch_cache._COMPILED) == kernels + 1
