"""The measured cases: named shapes, and random inputs for them with realistic values."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

DIRECTIONS = 4
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PARAMETERS = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")


@dataclass(frozen=True)
class Case:
    """One shape: B images with D channels and H x W positions, N states, and the group it belongs
    to."""

    B: int
    D: int
    H: int
    W: int
    N: int = 16
    group: str = "table"
    rank: int = 0  # dt_rank, if it differs from the layer's default for D

    @property
    def L(self) -> int:
        return self.H * self.W

    @property
    def R(self) -> int:
        """dt_rank of the layer with D inner channels: ceil(d_model / 16), d_model = D / 2."""
        return self.rank or math.ceil(self.D / 32)

    @property
    def label(self) -> str:
        states = "" if self.N == 16 else f", N={self.N}"
        rank = f", R={self.rank}" if self.rank else ""
        return f"{self.B}, {self.D}, {self.H}x{self.W}{states}{rank}"

    def as_dict(self) -> dict[str, int | str]:
        return asdict(self)


@dataclass(frozen=True)
class ModelCase:
    """One batch for a whole model: B images of H x W pixels, and the group it belongs to."""

    B: int
    H: int
    W: int
    group: str = "table"

    @property
    def label(self) -> str:
        return f"{self.B}, {self.H}x{self.W}"


# The original implementation's patch and batch sizes, and launch-bound cases: B = 2 and 1.
MODEL_GROUPS: dict[str, tuple[ModelCase, ...]] = {
    "table": (
        ModelCase(30, 320, 320),
        ModelCase(13, 384, 640),
        ModelCase(12, 512, 512),
        ModelCase(2, 320, 320),
        ModelCase(1, 320, 320),
    ),
    "tiny": (ModelCase(2, 32, 32, "tiny"), ModelCase(1, 40, 24, "tiny")),
}


def parse_model_case(text: str) -> ModelCase:
    """Parse a case from 'BxHxW'. ValueError says what was expected."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){2}", text):
        raise ValueError(f"shape is {text!r}, expected BxHxW, such as 30x320x320")
    B, H, W = (int(n) for n in text.split("x"))
    return ModelCase(B, H, W, "custom")


GROUPS: dict[str, tuple[Case, ...]] = {
    # The stages of the model at its training sizes, as in the published baselines.
    "table": (
        Case(30, 192, 80, 80),
        Case(12, 192, 128, 128),
        Case(30, 384, 40, 40),
        Case(30, 768, 20, 20),
        Case(30, 1536, 10, 10),
        Case(2, 192, 80, 80),
        Case(1, 192, 256, 256),
    ),
    # Lengths that no tile divides; each is compared with the first case of the same D.
    "ragged": tuple(
        Case(30, D, H, W, group="ragged")
        for D, H, W in (
            (192, 80, 80),
            (192, 79, 81),
            (192, 77, 83),
            (768, 20, 20),
            (768, 19, 21),
            (768, 17, 23),
        )
    ),
    # The first stage of an image of 32 ... 2048 pixels, at a quarter of the image's resolution.
    "sizes": tuple(
        Case(1, 192, size // 4, size // 4, group="sizes")
        for size in (32, 64, 128, 256, 512, 1024, 2048)
    ),
    "states": tuple(Case(30, 192, 40, 40, N, group="states") for N in (1, 4, 8, 16, 32, 64)),
    "tiny": (Case(1, 16, 5, 7, 4, group="tiny"), Case(2, 32, 8, 8, 16, group="tiny")),
}


def parse_case(text: str) -> Case:
    """Parse a case from 'BxDxHxW' or 'BxDxHxWxN'. ValueError says what was expected."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3,4}", text):
        raise ValueError(f"shape is {text!r}, expected BxDxHxW or BxDxHxWxN, such as 30x192x80x80")
    B, D, H, W, *rest = (int(n) for n in text.split("x"))
    return Case(B, D, H, W, rest[0] if rest else 16, "custom")


def ss2d_parameters(case: Case, device: torch.device) -> dict[str, Tensor]:
    """Float32 parameters as initialized by the layer: A_n = -n, softplus(bias) in 1e-3 ... 0.1.

    Drawn on the CPU from a fixed seed, so that every device sees the same numbers.
    """
    g = torch.Generator().manual_seed(case.D * 1000 + case.N)
    K, D, N, R = DIRECTIONS, case.D, case.N, case.R

    def uniform(*shape: int, bound: float) -> Tensor:
        return (2 * torch.rand(*shape, generator=g) - 1) * bound

    dt = torch.exp(torch.rand(K, D, generator=g) * math.log(100.0) + math.log(1e-3))
    parameters = {
        "x_proj_weight": uniform(K, R + 2 * N, D, bound=D**-0.5),
        "dt_projs_weight": uniform(K, D, R, bound=R**-0.5),
        "dt_projs_bias": dt + torch.log(-torch.expm1(-dt)),  # the inverse of softplus
        "A_logs": torch.log(torch.arange(1.0, N + 1)).repeat(K * D, 1),
        "Ds": 1 + uniform(K * D, bound=0.1),
    }
    return {name: t.to(device) for name, t in parameters.items()}


def ss2d_activations(
    case: Case, dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, Tensor]:
    """x (B, D, H, W) in dtype, and dy, the float32 gradient of y, of the same shape."""
    g = torch.Generator(device).manual_seed(seed)
    shape = (case.B, case.D, case.H, case.W)
    x = torch.randn(shape, generator=g, device=device)
    dy = torch.randn(shape, generator=g, device=device)
    return {"x": x.to(dtype), "dy": dy}


def selective_scan_inputs(
    case: Case, dtype: torch.dtype, device: torch.device, seed: int
) -> dict[str, Tensor]:
    """The same work as one 1-D scan: 4 * D channels in 4 groups, L = H * W.

    u, delta, dout (B, 4D, L), B, C (B, 4, N, L) in dtype; A (4D, N), D, delta_bias (4D,) float32.
    """
    g = torch.Generator(device).manual_seed(seed)
    channels = DIRECTIONS * case.D

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, device=device).to(dtype)

    parameters = ss2d_parameters(case, device)
    return {
        "u": normal(case.B, channels, case.L),
        "delta": 0.5 * normal(case.B, channels, case.L),
        "A": -torch.exp(parameters["A_logs"]),
        "B": normal(case.B, DIRECTIONS, case.N, case.L),
        "C": normal(case.B, DIRECTIONS, case.N, case.L),
        "D": parameters["Ds"],
        "delta_bias": parameters["dt_projs_bias"].flatten(),
        "dout": normal(case.B, channels, case.L),
    }


MAKERS = {
    "ss2d": ss2d_activations,
    "ss2d_scan": ss2d_activations,
    "selective_scan": selective_scan_inputs,
}
"""Maps each op to a function of (case, dtype, device, seed) that creates its activations."""


def exponentials(case: Case) -> int:
    """exp evaluations of one pass over the scan: one per state, step, channel and direction."""
    return case.B * DIRECTIONS * case.D * case.L * case.N
