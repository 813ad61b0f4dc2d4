"""mamba-ssm's own test lists, all 12,480 cases, each with all gradients against float64.

    python tests/ops/mamba_ssm_grid.py [--lengths 8 16 ...] [--backend auto] [--device cpu]

prints one JSON object: how many cases were right, and the names of those that were not. The whole
grid takes half an hour of a core; tests take parts of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

import torch
from cases import DRAWS, noise_like, rounded_again, too_far_from_float64, uncancelled_norms
from torch import Tensor
from torch.nn import functional as F

import swin_umamba_ops as ops

LENGTHS = (8, 16, 32, 64, 128, 256, 372, 512, 784, 1024, 1134, 2048, 4096)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SIZES = (2, 4, 8)  # B, D and N of mamba-ssm's tests
FEW = (1, 2, 2)  # of long sequences, whose sizes change nothing else
_MAX_LENGTH_OF_SIZES = 256
# Relative error of a GPU's exponentials (PTX: ex2.approx.ftz.f32). It depends on the argument
# alone, so that steps of nearly equal length all err to the same side.
_GPU_EXP_ERROR = 2**-22.5
Tensors = dict[str, Tensor]


class Case(NamedTuple):
    """One of mamba-ssm's cases."""

    length: int
    dtype: torch.dtype = torch.float32
    is_complex: bool = False
    variable_B: bool = True
    variable_C: bool = True
    groups: int = 1
    softplus: bool = True
    return_last_state: bool = True
    has_D: bool = True
    has_z: bool = True
    has_bias: bool = True

    @property
    def sizes(self) -> tuple[int, int, int]:
        return SIZES if self.length <= _MAX_LENGTH_OF_SIZES else FEW


def cases(lengths: tuple[int, ...] = LENGTHS, *, is_complex: bool) -> Iterator[Case]:
    """All with these lengths; groups are of maps that vary."""
    yes_no = (False, True)
    for length, dtype, variable_B, variable_C, groups, *options in itertools.product(
        lengths, DTYPES, yes_no, yes_no, (1, 2), *[yes_no] * 5
    ):
        if groups == 1 or (variable_B and variable_C):
            yield Case(length, dtype, is_complex, variable_B, variable_C, groups, *options)


def make(case: Case) -> Tensors:
    """The tensors that mamba-ssm's test makes, by its names; rounded to the dtypes it has."""
    g = torch.Generator().manual_seed(0)
    weight = torch.complex64 if case.is_complex else torch.float32
    B, D, N = case.sizes

    def normal(*shape: int, of: torch.dtype = case.dtype) -> Tensor:
        return torch.randn(shape, generator=g, dtype=of if of.is_complex else torch.float32).to(of)

    def uniform(*shape: int, of: torch.dtype = torch.float32) -> Tensor:
        return torch.rand(shape, generator=g, dtype=of if of.is_complex else torch.float32).to(of)

    def sequence(variable: bool) -> Tensor:
        steps = 2 * case.length if case.is_complex else case.length
        if not variable:
            return normal(D, N, of=weight)
        return normal(B, N, steps) if case.groups == 1 else normal(B, case.groups, N, steps)

    made = {
        "u": normal(B, D, case.length),
        "delta": 0.5 * uniform(B, D, case.length, of=case.dtype),
        "A": -0.5 * uniform(D, N, of=weight),
        "B": sequence(case.variable_B),
        "C": sequence(case.variable_C),
    }
    if case.has_D:
        made["D"] = normal(D, of=torch.float32)
    if case.has_z:
        made["z"] = normal(B, D, case.length)
    if case.has_bias:
        made["delta_bias"] = 0.5 * uniform(D)
    return made


def _map(t: Tensor, wide: torch.dtype, is_complex: bool, channels: int) -> Tensor:
    """B or C as (B, D, N, L), or with axes of size 1."""
    if t.dim() == 2:
        return t.to(wide)[None, :, :, None]
    if is_complex:
        parts = t.to(torch.float64 if wide == torch.complex128 else torch.float32)
        t = torch.view_as_complex(parts.unflatten(-1, (-1, 2)).contiguous())
    t = t.to(wide)
    return t[:, None] if t.dim() == 3 else t.repeat_interleave(channels // t.shape[1], dim=1)


def formula(
    case: Case, t: Tensors, real: torch.dtype, exp_error: float = 0
) -> tuple[Tensor, Tensor]:
    """Output and last state, by doubling: states of 2, 4, 8, ... steps from those of half as many.
    None of our backends computes them so. real: the dtype of states and sums. exp_error: relative
    error of every exponential."""
    wide = torch.promote_types(real, torch.complex32) if case.is_complex else real
    u, dt, A = t["u"].to(real), t["delta"].to(real), t["A"].to(wide)
    if case.has_bias:
        dt = dt + t["delta_bias"].to(real)[:, None]
    if case.softplus:
        dt = F.softplus(dt, threshold=40.0)
    Bs, Cs = (_map(t[name], wide, case.is_complex, u.shape[1]) for name in ("B", "C"))
    decay = (1 + exp_error) * torch.exp(dt[:, :, None] * A[:, :, None])
    h = (dt * u)[:, :, None] * Bs
    step = 1
    while step < case.length:
        later = h[..., step:] + decay[..., step:] * h[..., :-step]
        h = torch.cat([h[..., :step], later], -1)
        decay = torch.cat([decay[..., :step], decay[..., step:] * decay[..., :-step]], -1)
        step *= 2
    out = (Cs * h).sum(2)
    out = 2 * out.real if case.is_complex else out
    if case.has_D:
        out = out + t["D"].to(real)[:, None] * u
    if case.has_z:
        out = out * F.silu(t["z"].to(real))
    return out.to(t["u"].dtype), h[..., -1]


def _noise(case: Case, leaving: list[Tensor]) -> list[Tensor]:
    """The gradients of the output and the last state."""
    return [noise_like(t.real).to(case.dtype).to(t) for t in leaving]


def _with_gradients(case: Case, leaves: Tensors, out: Tensor, last: Tensor | None) -> Tensors:
    """Output, last state and the gradients of all inputs by both, all real."""
    leaving = [t for t in (out, last) if t is not None]
    gradients = torch.autograd.grad(leaving, list(leaves.values()), _noise(case, leaving))
    found = dict(zip(("out", "last"), leaving, strict=False))
    found |= {f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}
    return {
        name: torch.view_as_real(t.detach()) if t.is_complex() else t.detach()
        for name, t in found.items()
    }


def _by_formula(case: Case, inputs: Tensors, real: torch.dtype, exp_error: float = 0) -> Tensors:
    leaves = {name: t.detach().clone().requires_grad_() for name, t in inputs.items()}
    out, last = formula(case, leaves, real, exp_error)
    return _with_gradients(case, leaves, out, last if case.return_last_state else None)


def _uncancelled(case: Case, widened: Tensors) -> dict[str, float]:
    leaves = {name: t.detach().clone().requires_grad_() for name, t in widened.items()}
    out, last = formula(case, leaves, torch.float64)
    leaving = [out, last] if case.return_last_state else [out]
    return uncancelled_norms(leaving, leaves, _noise(case, leaving))


def failures(case: Case, backend: str = "auto", device: str = "cpu") -> list[str]:
    """What is too far from float64 in a case, and every wrong shape or dtype."""
    inputs = make(case)
    B, D, N = case.sizes
    widened = {
        name: t.to(torch.complex128 if t.is_complex() else torch.float64)
        for name, t in inputs.items()
    }
    exact = _by_formula(case, widened, torch.float64)
    plain = [_by_formula(case, inputs, torch.float32)]
    leaves = {name: t.to(device).requires_grad_() for name, t in inputs.items()}
    result = ops.selective_scan_fn(
        **leaves, delta_softplus=case.softplus, return_last_state=case.return_last_state,
        backend=backend,
    )  # fmt: skip
    out, last = result if case.return_last_state else (result, None)
    wrong = []
    if out.dtype != case.dtype or out.shape != (B, D, case.length):
        wrong.append(f"out is {tuple(out.shape)} of {out.dtype}")
    state = torch.complex64 if case.is_complex else torch.float32
    if last is not None and (last.dtype != state or last.shape != (B, D, N)):
        wrong.append(f"last state is {tuple(last.shape)} of {last.dtype}")
    found = {name: t.cpu() for name, t in _with_gradients(case, leaves, out, last).items()}
    for name, t in inputs.items():
        if found[f"d{name}"].dtype != (torch.float32 if t.is_complex() else t.dtype):
            wrong.append(f"d{name} has dtype {found[f'd{name}'].dtype}")
    far = too_far_from_float64(found, exact, *plain)
    norms = _uncancelled(case, widened) if far else {}
    for draw in range(DRAWS):  # as check_function: what inputs' own rounding loses
        far = far and too_far_from_float64(found, exact, *plain, norms=norms)
        if not far:
            return wrong
        plain.append(_by_formula(case, rounded_again(inputs, draw), torch.float64))
    if device.startswith("cuda"):
        plain.append(_by_formula(case, widened, torch.float64, _GPU_EXP_ERROR))
    far = too_far_from_float64(found, exact, *plain, norms=norms)
    return wrong + far


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    right, wrong = 0, {}
    for is_complex in (False, True):
        for case in cases(tuple(options.lengths), is_complex=is_complex):
            found = failures(case, options.backend, options.device)
            if found:
                wrong[str(case)] = found
            else:
                right += 1
    print(json.dumps({"right": right, "wrong": len(wrong), "failures": wrong}, indent=1))


if __name__ == "__main__":
    main()
