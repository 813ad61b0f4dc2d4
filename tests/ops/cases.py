"""Shapes, inputs and the accuracy rule that the tests of every backend share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swin_umamba_ops import backends

SS2D_NAMES = ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
SCAN_NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Target:
    """A backend on a device; named in test ids as backend-device."""

    backend: str
    device: str

    def why_not(self, dtype: torch.dtype, N: int) -> str | None:
        """Why it does not support such inputs, or None if it does."""
        backend = backends.BACKENDS[self.backend]
        return backends.why_not(backend, "ss2d", torch.device(self.device), dtype, N)


@dataclass(frozen=True)
class SS2DCase:
    """Sizes of a four-direction scan."""

    B: int
    D: int
    H: int
    W: int
    N: int
    R: int

    def __str__(self) -> str:
        return f"B{self.B}-D{self.D}-{self.H}x{self.W}-N{self.N}-R{self.R}"


SS2D_CASES = (
    SS2DCase(1, 1, 1, 1, 1, 1),
    SS2DCase(2, 3, 1, 1, 4, 2),
    SS2DCase(2, 5, 1, 37, 4, 1),
    SS2DCase(2, 5, 41, 1, 4, 1),
    SS2DCase(1, 16, 8, 8, 16, 1),
    SS2DCase(2, 24, 9, 13, 3, 2),
    SS2DCase(1, 33, 17, 19, 1, 3),
    SS2DCase(3, 40, 6, 5, 7, 4),
    SS2DCase(1, 64, 12, 11, 8, 6),
    SS2DCase(1, 12, 16, 16, 16, 6),
    SS2DCase(1, 6, 5, 7, 33, 2),
    SS2DCase(1, 4, 6, 6, 64, 1),
)


@dataclass(frozen=True)
class ScanCase:
    """Sizes of a one-dimensional scan; G groups."""

    B: int
    D: int
    L: int
    N: int
    G: int = 1

    def __str__(self) -> str:
        return f"B{self.B}-D{self.D}-L{self.L}-N{self.N}-G{self.G}"


SCAN_CASES = (
    ScanCase(1, 1, 1, 1),
    ScanCase(2, 6, 1, 4, 3),
    ScanCase(2, 5, 63, 3),
    ScanCase(1, 33, 64, 16),
    ScanCase(2, 12, 65, 5, 4),
    ScanCase(3, 8, 130, 8, 8),
    ScanCase(1, 70, 200, 1, 2),
    ScanCase(1, 4, 77, 64, 2),
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_ss2d(case: SS2DCase, seed: int = 0, scale: float = 1.0) -> Tensors:
    """Inputs in float64 of the sizes and ranges that models have: dt from 0.001 to 0.1 and more.

    scale multiplies x.
    """
    B, D, H, W, N, R = case.B, case.D, case.H, case.W, case.N, case.R
    g = _generator(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    dt = torch.exp(torch.rand(4, D, generator=g, dtype=torch.float64) * math.log(100)) * 1e-3
    return {
        "x": scale * normal(B, D, H, W),
        "x_proj_weight": normal(4, R + 2 * N, D) / math.sqrt(D),
        "dt_projs_weight": normal(4, D, R) / math.sqrt(R),
        "dt_projs_bias": dt + torch.log(-torch.expm1(-dt)),
        "A_logs": torch.log(0.5 + 15.5 * torch.rand(4 * D, N, generator=g, dtype=torch.float64)),
        "Ds": 1 + 0.1 * normal(4 * D),
    }


def make_scan(case: ScanCase, seed: int = 0) -> Tensors:
    """Inputs in float64, all optional ones included; meant for delta_softplus=True."""
    g = _generator(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    sequence = (case.B, case.D, case.L)
    maps = (case.B, case.G, case.N, case.L)
    return {
        "u": normal(*sequence),
        "delta": normal(*sequence) - 1,
        "A": -0.5 - 4 * torch.rand(case.D, case.N, generator=g, dtype=torch.float64),
        "B": normal(*maps),
        "C": normal(*maps),
        "D": normal(case.D),
        "z": normal(*sequence),
        "delta_bias": normal(case.D),
    }


def cast_ss2d(inputs: Tensors, dtype: torch.dtype, device: str = "cpu") -> Tensors:
    """Round to what a model in `dtype` holds: x in dtype, parameters in float32 (or float64).

    The weights of the projections, which run in dtype, are rounded to it as well.
    """
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    out = {}
    for name, t in inputs.items():
        if name in ("x", "x_proj_weight", "dt_projs_weight"):
            t = t.to(dtype)
        out[name] = t.to(device, dtype if name == "x" else parameter)
    return out


def cast_scan(inputs: Tensors, dtype: torch.dtype, device: str = "cpu") -> Tensors:
    """Round to `dtype`, except A, D and delta_bias, which stay float32 (or float64)."""
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        name: t.to(device, parameter if name in ("A", "D", "delta_bias") else dtype)
        for name, t in inputs.items()
    }


def with_gradients(
    function: Callable[..., Tensor], inputs: Tensors, output_gradient: Tensor | None = None
) -> Tensors:
    """`out` = function(*inputs) and, as "d" + name, the gradient of every input.

    output_gradient: noise by default.
    """
    leaves = {name: t.detach().requires_grad_() for name, t in inputs.items()}
    out = function(*leaves.values())
    gradient = noise_like(out) if output_gradient is None else output_gradient
    gradients = torch.autograd.grad(out, list(leaves.values()), gradient.to(out.device, out.dtype))
    return {"out": out.detach(), **{f"d{n}": g for n, g in zip(leaves, gradients, strict=True)}}


def noise_like(t: Tensor, seed: int = 7) -> Tensor:
    """Normal noise of t's shape, for gradients of outputs; float32, on the CPU."""
    return torch.randn(t.shape, generator=_generator(seed))


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """||actual - exact|| / ||exact|| in float64; 0 / 0 is 0."""
    actual, exact = actual.double().cpu(), exact.double().cpu()
    error, norm = (actual - exact).norm().item(), exact.norm().item()
    return 0.0 if error == 0.0 else error / norm if norm else math.inf


DRAWS = 10  # of moved inputs


def rounded_again(inputs: Tensors, draw: int = 0) -> Tensors:
    """The inputs in float64, every element moved by up to half a unit in its last place."""
    g = _generator(11 + draw)

    def moved(t: Tensor) -> Tensor:
        if t.is_complex():
            return torch.view_as_complex(moved(torch.view_as_real(t)))
        part = 2 * torch.rand(t.shape, generator=g, dtype=torch.float64) - 1
        return t.double() * (1 + part * torch.finfo(t.dtype).eps / 2)

    return {name: moved(t) for name, t in inputs.items()}


SIGNS = 8  # draws of signs


def uncancelled_norms(
    outputs: list[Tensor], inputs: Tensors, output_gradients: list[Tensor]
) -> dict[str, float]:
    """By gradient, the norm that it has if its summands do not cancel.

    A gradient is a sum over positions, and each summand is rounded. If the sum is a hundredth of
    its summands by chance, so may be its accuracy. Random signs of the output gradients make the
    same summands add up differently: the root mean square of the norms.
    """
    squares = dict.fromkeys(inputs, 0.0)
    for draw in range(SIGNS):
        g = _generator(101 + draw)
        signed = [
            t * (2 * torch.randint(0, 2, t.shape, generator=g) - 1).to(t.device)
            for t in output_gradients
        ]
        found = torch.autograd.grad(outputs, list(inputs.values()), signed, retain_graph=True)
        for name, gradient in zip(inputs, found, strict=True):
            squares[name] += gradient.norm().item() ** 2 / SIGNS
    return {f"d{name}": math.sqrt(square) for name, square in squares.items()}


def too_far_from_float64(
    actual: Tensors, exact: Tensors, *plain: Tensors, norms: Mapping[str, float] | None = None
) -> list[str]:
    """Which tensors' relative errors are more than twice those of the plain computations.

    actual: what a backend returns. exact: float64 on the same rounded inputs. plain: what may be
    lost anyway, the worst counting: the straightforward computation in actual's precision, and
    float64 on inputs moved within their own rounding. The floor of 16 roundings of the states'
    precision, and of 2 of the inputs' in a single number, less in longer tensors where chance
    evens out, serves results whose plain error is small by luck. norms: `uncancelled_norms`, to
    which roundings are relative where they are larger than the result.
    """
    assert actual.keys() == exact.keys()
    coarsest = max(torch.finfo(t.dtype).eps for t in actual.values())
    states = min(coarsest, torch.finfo(torch.float32).eps)
    failures = []
    for name, value in actual.items():
        bound = 2 * max(relative_error(p[name], exact[name]) for p in plain)
        floor = 16 * states + 2 * coarsest / math.sqrt(value.numel())
        bound += floor * _cancellation(exact[name], (norms or {}).get(name, 0.0))
        error = relative_error(value, exact[name])
        if not error <= bound:  # a NaN is a failure too
            failures.append(f"{name}: error {error:.3g} above {bound:.3g}")
    return failures


def _cancellation(t: Tensor, norm: float) -> float:
    """How many times larger the norm without cancellation is; 1 at least."""
    own = t.double().norm().item()
    return max(1.0, norm / own) if own else 1.0


def assert_close_to_float64(
    actual: Tensors, exact: Tensors, *plain: Tensors, norms: Mapping[str, float] | None = None
) -> None:
    """No tensor is too far."""
    failures = too_far_from_float64(actual, exact, *plain, norms=norms)
    assert not failures, "; ".join(failures)


def check_function(
    function: Callable[..., Tensor], plain_function: Callable[..., Tensor], inputs: Tensors
) -> None:
    """`function` agrees with `plain_function`, run in float64, within the accuracy rule.

    inputs: on the device under test, passed in order; forward and all gradients are compared.
    """
    on_cpu = {name: t.detach().cpu() for name, t in inputs.items()}
    exact = with_gradients(plain_function, {name: t.double() for name, t in on_cpu.items()})
    actual = with_gradients(function, inputs)
    plain = [with_gradients(plain_function, on_cpu)]
    if not too_far_from_float64(actual, exact, *plain):
        return
    leaves = {name: t.double().requires_grad_() for name, t in on_cpu.items()}
    out = plain_function(*leaves.values())
    norms = uncancelled_norms([out], leaves, [noise_like(out).to(out.dtype)])
    # One draw of moved inputs may miss by luck what ten show to be lost. Each is made only where
    # those before do not explain an error.
    for draw in range(DRAWS):
        if not too_far_from_float64(actual, exact, *plain, norms=norms):
            return
        plain.append(with_gradients(plain_function, rounded_again(on_cpu, draw)))
    assert_close_to_float64(actual, exact, *plain, norms=norms)


def disturbed_runs(run: Callable[[], Tensors], times: int) -> list[Tensors]:
    """The results of several runs, on a GPU beside other work, of another size each time."""
    results = []
    for i in range(times):
        if torch.cuda.is_available():
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                other = torch.ones(512 + 256 * (i % 5), 2048, device="cuda")
                for _ in range(8):
                    other @ other.T
        results.append(run())
    return results


def differing(results: list[Tensors]) -> list[str]:
    """What is not bitwise the same in all runs."""
    first = results[0]
    return [name for name in first if any(not torch.equal(first[name], r[name]) for r in results)]
