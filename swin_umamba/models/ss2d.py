"""The SS2D layer: the four-direction selective scan between two projections."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import swin_umamba_ops as ops
from swin_umamba.common.checks import check_positive
from swin_umamba.models.fused import DepthwiseConv2d, LayerNorm

DIRECTIONS = 4


class Scan(nn.Module):
    """The scan of an SS2D layer as a module without parameters: `swin_umamba_ops.ss2d`.

    Called with that function's six tensors and the backend's name, so that hooks see the scan like
    any other layer.
    """

    def forward(
        self,
        x: Tensor,
        x_proj_weight: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        backend: str = "auto",
    ) -> Tensor:
        return ops.ss2d(
            x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, backend=backend
        )


class SS2D(nn.Module):
    """Mix a feature map by scanning it in four directions (VMamba, arXiv:2401.10166).

    x: (B, H, W, d_model), float64, float32 or 16-bit; the result has x's shape and, outside of
    autocast, x's dtype. The layout is channels last throughout, so no step copies the map to change
    it.

    d_state: N, states per channel. expand: d_inner = expand * d_model channels are scanned. d_conv:
    odd width of the depthwise convolution before the scan. dt_rank: R, rank of the step size
    projection; ceil(d_model / 16) by default. dt_min, dt_max: range of initial step sizes. gated:
    multiply the scan's result by SiLU of the other half of the input projection. conv_bias: of the
    depthwise convolution. backend: as in `swin_umamba_ops.ss2d`.

    Parameter names and shapes match the checkpoints of VMamba and Swin-UMamba; VMamba's second
    generation has neither gate nor bias.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        expand: int = 2,
        d_conv: int = 3,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        gated: bool = True,
        conv_bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        check_positive(d_model=d_model, d_state=d_state, expand=expand, dt_rank=rank)
        if d_conv < 1 or d_conv % 2 == 0:
            raise ValueError(f"d_conv: got {d_conv}, expected an odd number")
        if not 0.0 < dt_min <= dt_max:
            raise ValueError(
                f"dt_min, dt_max: got {dt_min}, {dt_max}, expected 0 < dt_min <= dt_max"
            )
        self.d_model = d_model
        self.d_state = d_state
        self.d_inner = expand * d_model
        self.dt_rank = rank
        self.gated = gated
        self.backend = backend

        inner = self.d_inner
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * d_state, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * inner, d_state))
        self.Ds = nn.Parameter(torch.empty(DIRECTIONS * inner))
        self.in_proj = nn.Linear(d_model, 2 * inner if gated else inner, bias=False)
        self.conv2d = DepthwiseConv2d(inner, d_conv, bias=conv_bias)
        self.scan = Scan()
        self.out_norm = LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self._init_scan(dt_min, dt_max)

    @torch.no_grad()
    def _init_scan(self, dt_min: float, dt_max: float) -> None:
        """Initialize the scan's parameters as Mamba does: A = -(1..N), steps in dt_min..dt_max."""
        self.x_proj_weight.uniform_(-1.0, 1.0).mul_(self.d_inner**-0.5)
        self.dt_projs_weight.uniform_(-1.0, 1.0).mul_(self.dt_rank**-0.5)
        log_dt = torch.empty_like(self.dt_projs_bias).uniform_(math.log(dt_min), math.log(dt_max))
        dt = log_dt.exp()
        self.dt_projs_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) == dt
        self.A_logs.copy_(torch.arange(1.0, self.d_state + 1.0).log().expand_as(self.A_logs))
        self.Ds.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[-1] != self.d_model:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, H, W, {self.d_model})")
        u = self.in_proj(x)
        if self.gated:
            u, z = u.chunk(2, dim=-1)
        u = DepthwiseConv2d.then_silu(self.conv2d, u.permute(0, 3, 1, 2))
        y = self.scan(
            u,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
            self.backend,
        )
        # y is float32 for 16-bit x, and is normalized in that precision.
        y = y.permute(0, 2, 3, 1)
        y = LayerNorm.gated(self.out_norm, y, z) if self.gated else self.out_norm(y).to(u.dtype)
        out: Tensor = self.out_proj(y)
        return out

    def extra_repr(self) -> str:
        gate = "" if self.gated else ", gated=False"
        return f"d_state={self.d_state}, dt_rank={self.dt_rank}{gate}, backend={self.backend!r}"
