"""What Triton makes of the scan's kernels for a GPU, seen without one.

Their layout is claimed, not written (triton_kernels/tile.py): where a release of Triton takes the
claims otherwise, values are rearranged through shared memory at each step.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

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


def _compiled(direction: str, N: int, **options: int) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from swin_umamba_ops.backends import triton as backend
    from swin_umamba_ops.backends.triton_kernels import backward, forward

    kernel, backwards, own = {
        "forward": (forward.forward_kernel, False, {"SAVE": True, "STAGED": True, "PIECE": 4}),
        "split": (forward.split_kernel, False, {"STAGED": True, "BACKWARD": False, "PIECE": 4}),
        "split backward": (forward.split_kernel, False, {"STAGED": False, "BACKWARD": True}),
        "backward": (backward.backward_kernel, True, {"SOFTPLUS": True}),
    }[direction]
    tile = backend._tile(N, backwards, False)
    if "split" in direction:
        tile = backend._split_tile(N, False)
    constants = {
        "N": N, "NH": tile.NH, "NL": tile.NL, "DH": tile.DH, "DL": tile.DL, "U": tile.U,
        "T": backend.chunk_length, "EVEN": True, "WIDE": 16, "PIECE": 16, "FAR": False,
        "IMAGE": True, "LAST": False, "SPLIT": False, **own, **options,
    }  # fmt: skip
    names = kernel.arg_names
    pointers = names[: names.index("D")]

    def kind(name: str) -> str:
        if name in pointers:
            half = name in HALF or (name == "bc" and constants.get("STAGED"))
            return "*fp16" if half else "*fp32"
        return "constexpr" if name in constants else "i32"

    source = ASTSource(
        kernel,
        {name: kind(name) for name in names},
        {(i,): constants[name] for i, name in enumerate(names) if name in constants},
        {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in pointers},
    )
    compiling = {
        "num_warps": 1, "enable_fp_fusion": True, "maxnreg": backend._MOST_REGISTERS
    }  # fmt: skip
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=compiling)


DIRECTIONS = pytest.mark.parametrize(
    "direction", ["forward", "split", "split backward", "backward"]
)


@DIRECTIONS
@pytest.mark.parametrize("N", [1, 8, 16, 64])
def test_nothing_is_spilled_and_no_step_goes_through_shared_memory(
    direction: str, N: int, tmp_path: Path
) -> None:
    compiled = _compiled(direction, N)
    if N == 16:
        # Of a chunk's own dt: the operands of a matrix product.
        assert compiled.metadata.shared <= (0 if "back" in direction else 1024)
        assert "ld.global.v4" in compiled.asm["ptx"]
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "STACK:0" in report, report


@DIRECTIONS
@pytest.mark.parametrize("N", [5, 16])
def test_ragged_sequences_with_a_last_state_compile(direction: str, N: int) -> None:
    """Types must agree on both sides of a branch, which the interpreter does not ask for."""
    _compiled(
        direction, N, EVEN=False, WIDE=0, PIECE=0, IMAGE=False, STAGED=False, LAST=True, SPLIT=True
    )
