"""Run every kernel at least once on small inputs, for memory checkers:

    compute-sanitizer --tool memcheck --error-exitcode 1 python -m benchmarks.ops.every_kernel

Sizes are irregular: not multiples of a tile, of a block's channels or of a vector. `--backend`
selects another backend than "cuda"; sequences are processed whole and cut into splits. Images with
one state are also cut into clusters of blocks, which small ones would not be.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch

import swin_umamba_ops as ops
from benchmarks.measuring import cases
from benchmarks.measuring.cases import DTYPES, Case
from swin_umamba_ops.backends import cuda
from swin_umamba_ops.backends._cuda_launch import compiled, make_plan, tiles

# The numbers of states with specialized kernels, and one beyond.
STATES = (1, 3, 4, 8, 16, 32, 64, 70)
# Channels, height, width and rank: pieces of every kind, a sequence of one step, and long ones.
SHAPES = (
    (24, 5, 7, 3),
    (40, 13, 9, 6),
    (200, 9, 11, 13),
    (8, 1, 1, 1),
    (24, 40, 33, 25),
    (36, 6, 6, 48),
)
# Blocks of a cluster, as in csrc/cuda/partition.cu.
CLUSTERS = (2, 4)
CLUSTER_DTYPES = (torch.float16, torch.bfloat16)


def all_cases(states: Sequence[int]) -> Iterator[Case]:
    for N in states:
        for D, H, W, R in SHAPES:
            yield Case(2, D, H, W, N, "every kernel", R)


def run_scans(device: torch.device, backend: str, states: Sequence[int] = STATES) -> int:
    """Forward and backward of both scans; returns the number of cases."""
    count = 0
    for case in all_cases(states):
        for dtype in DTYPES.values():
            x = run_image(case, dtype, device, backend)
            sequence = x.flatten(2).contiguous()
            maps = torch.ones(case.B, 1, case.N, case.L, dtype=dtype, device=device)
            A = -torch.rand(case.D, case.N, device=device)
            u, delta, Bs, Cs = sequence.clone(), sequence, maps, maps + 1
            operands = [t.requires_grad_() for t in (u, delta, A, Bs, Cs)]
            out = ops.selective_scan(u, delta, A, Bs, Cs, delta_softplus=True, backend=backend)
            torch.autograd.grad(out.float().sum(), operands)
            count += 1
        print(case.label, file=sys.stderr)
    return count


def run_image(case: Case, dtype: torch.dtype, device: torch.device, backend: str) -> torch.Tensor:
    """Forward and backward of ss2d; returns x (B, D, H, W)."""
    x, dy = cases.ss2d_activations(case, dtype, device, 0).values()
    x = x.contiguous(memory_format=torch.channels_last)
    parameters = cases.ss2d_parameters(case, device).values()
    inputs = [t.requires_grad_() for t in (x, *parameters)]
    y = ops.ss2d(*inputs, backend=backend)
    torch.autograd.grad(y, inputs, dy)
    return x.detach()


@contextlib.contextmanager
def in_clusters(blocks: int) -> Iterator[None]:
    """The CUDA kernels of one state run in clusters of this many blocks, with as many tiles side by
    side in each as fit."""
    most_warps = {"FORWARD": 16, "BACKWARD": 12}  # csrc/cuda/one_state_sizes.h

    def cut(which: str, device: torch.device, family: Any, **fields: int) -> Any:
        plan = make_plan(which, device, family, **fields)
        if family not in (compiled().Family.ONE_STATE, compiled().Family.ONE_STATE_IMAGE):
            return plan
        plan.one_state_blocks = blocks
        plan.splits, plan.tiles_per_split = 1, tiles(plan.H * plan.W)
        index = torch.cuda.current_device() if device.index is None else device.index
        for fewer in range(min(4, most_warps[which] // plan.one_state), 0, -1):
            plan.one_state_tiles = fewer
            if plan.shared_bytes() <= compiled().max_shared_bytes(index):
                break
        return plan

    with mock.patch.object(cuda, "make_plan", cut):
        cuda._ss2d_plan.cache_clear()
        yield
    cuda._ss2d_plan.cache_clear()


def run_clusters(device: torch.device) -> int:
    """Forward and backward of images with one state in clusters; returns the number of cases."""
    count = 0
    for blocks in CLUSTERS:
        with in_clusters(blocks):
            for case in all_cases((1,)):
                for dtype in CLUSTER_DTYPES:
                    run_image(case, dtype, device, "cuda")
                    count += 1
        print(f"clusters of {blocks}", file=sys.stderr)
    return count


def main() -> None:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--states", type=int, nargs="+", default=STATES)
    args = parser.parse_args()
    device = torch.device(args.device)
    # In this thread: the one that torch starts for backward passes may still hold something that
    # only Python can free when Python ends, which aborts the process.
    with torch.autograd.set_multithreading_enabled(False):
        count = run_scans(device, args.backend, args.states)
        with_clusters = args.backend == "cuda" and 1 in args.states
        if with_clusters and torch.cuda.get_device_capability(device) >= (9, 0):
            count += run_clusters(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    print(count, "cases")


if __name__ == "__main__":
    main()
