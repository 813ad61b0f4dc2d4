"""Run every kernel at least once on small inputs, for memory checkers:

    compute-sanitizer --tool memcheck --error-exitcode 1 python -m benchmarks.ops.every_kernel

Sizes are irregular: not multiples of a tile, of a block's channels or of a vector. `--backend`
selects another backend than "cuda"; sequences are processed whole and cut into splits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch

import swin_umamba_ops as ops
from benchmarks.measuring import cases
from benchmarks.measuring.cases import DTYPES, Case

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


def all_cases(states: Sequence[int]) -> Iterator[Case]:
    for N in states:
        for D, H, W, R in SHAPES:
            yield Case(2, D, H, W, N, "every kernel", R)


def run_scans(device: torch.device, backend: str, states: Sequence[int] = STATES) -> int:
    """Forward and backward of both scans; returns the number of cases."""
    count = 0
    for case in all_cases(states):
        for dtype in DTYPES.values():
            x, dy = cases.ss2d_activations(case, dtype, device, 0).values()
            x = x.contiguous(memory_format=torch.channels_last)
            parameters = cases.ss2d_parameters(case, device).values()
            inputs = [t.requires_grad_() for t in (x, *parameters)]
            y = ops.ss2d(*inputs, backend=backend)
            torch.autograd.grad(y, inputs, dy)
            sequence = x.detach().flatten(2).contiguous()
            maps = torch.ones(case.B, 1, case.N, case.L, dtype=dtype, device=device)
            A = -torch.rand(case.D, case.N, device=device)
            u, delta, Bs, Cs = sequence.clone(), sequence, maps, maps + 1
            operands = [t.requires_grad_() for t in (u, delta, A, Bs, Cs)]
            out = ops.selective_scan(u, delta, A, Bs, Cs, delta_softplus=True, backend=backend)
            torch.autograd.grad(out.float().sum(), operands)
            count += 1
        print(case.label, file=sys.stderr)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count


def main() -> None:
    """Run and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--states", type=int, nargs="+", default=STATES)
    args = parser.parse_args()
    print(run_scans(torch.device(args.device), args.backend, args.states), "cases")


if __name__ == "__main__":
    main()
