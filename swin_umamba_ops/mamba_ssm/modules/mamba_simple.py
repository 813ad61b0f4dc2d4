"""Mamba's layer (arXiv:2312.00752), with mamba-ssm's parameters, states and calls."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swin_umamba_ops.mamba_ssm.inner import (
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_inner_fn,
)
from swin_umamba_ops.mamba_ssm.scan import selective_scan_fn
from swin_umamba_ops.state_update import selective_state_update


class Mamba(nn.Module):
    """(B, L, d_model) to the same shape, causally; checkpoints of mamba-ssm's layer load directly.

    d_state: N; expand: D = expand * d_model channels are scanned; d_conv: width of the causal
    convolution; dt_rank: R, ceil(d_model / 16) for "auto". dt_min to dt_init_floor: initial step
    sizes. use_fast_path is accepted without effect. layer_idx: the layer's key in a model's cache.
    backend: as in `swin_umamba_ops.selective_scan`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init is {dt_init!r}, expected 'random' or 'constant'")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = inner = int(expand * d_model)
        self.dt_rank = rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) else dt_rank
        self.use_fast_path, self.layer_idx, self.backend = use_fast_path, layer_idx, backend
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **where)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias, **where
        )
        self.activation, self.act = "silu", nn.SiLU()
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False, **where)
        self.dt_proj = nn.Linear(rank, inner, bias=True, **where)
        self.A_log = nn.Parameter(
            torch.arange(1, d_state + 1, dtype=torch.float32, device=device).log().repeat(inner, 1)
        )
        self.D = nn.Parameter(torch.ones(inner, device=device))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **where)
        # Attributes that trainers of mamba-ssm's models look for.
        cast(Any, self.A_log)._no_weight_decay = True
        cast(Any, self.D)._no_weight_decay = True
        cast(Any, self.dt_proj.bias)._no_reinit = True

        std = rank**-0.5 * dt_scale
        with torch.no_grad():
            if dt_init == "constant":
                self.dt_proj.weight.fill_(std)
            else:
                self.dt_proj.weight.uniform_(-std, std)
            dt = torch.empty(inner, device=device).uniform_(math.log(dt_min), math.log(dt_max))
            dt = dt.exp().clamp(min=dt_init_floor)
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) == dt

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """inference_params: a generating model's cache, with seqlen_offset and
        key_value_memory_dict; after its first call, one step at a time."""
        A = -torch.exp(self.A_log.float())
        if inference_params is None:
            out: Tensor = mamba_inner_fn(
                self.in_proj(hidden_states).transpose(1, 2), self.conv1d.weight, self.conv1d.bias,
                self.x_proj.weight, self.dt_proj.weight, self.out_proj.weight, self.out_proj.bias,
                A, D=self.D.float(), delta_bias=self.dt_proj.bias.float(), backend=self.backend,
            )  # fmt: skip
            return out
        conv_state, ssm_state = self._get_states_from_cache(inference_params, len(hidden_states))
        if inference_params.seqlen_offset > 0:
            return self.step(hidden_states, conv_state, ssm_state)[0]
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)
        # Padded, or truncated on the left, to the convolution's width.
        conv_state.copy_(F.pad(x, (self.d_conv - x.shape[-1], 0)))
        weight = self.conv1d.weight.squeeze(1)
        x = causal_conv1d_fn(x, weight, self.conv1d.bias, activation=self.activation)
        dt, B, C = self._projections(x.transpose(1, 2))
        y, last = selective_scan_fn(
            x, F.linear(dt, self.dt_proj.weight).transpose(1, 2), A, B.transpose(1, 2),
            C.transpose(1, 2), self.D.float(), z, self.dt_proj.bias.float(), True, True,
            backend=self.backend,
        )  # fmt: skip
        ssm_state.copy_(last)
        projected: Tensor = self.out_proj(y.transpose(1, 2))
        return projected

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return dt, B, C

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step, (B, 1, d_model); the states (B, D, d_conv) and (B, D, N) are updated in place,
        and returned after the output."""
        if hidden_states.shape[1] != 1:
            raise ValueError(f"hidden_states has {hidden_states.shape[1]} steps, expected 1")
        x, z = self.in_proj(hidden_states.squeeze(1)).chunk(2, dim=-1)
        weight = self.conv1d.weight.squeeze(1)
        x = causal_conv1d_update(x, conv_state, weight, self.conv1d.bias, self.activation)
        dt, B, C = self._projections(x)
        y = selective_state_update(
            ssm_state, x, F.linear(dt, self.dt_proj.weight), -torch.exp(self.A_log.float()), B, C,
            self.D, z, self.dt_proj.bias, dt_softplus=True,
        )  # fmt: skip
        return self.out_proj(y).unsqueeze(1), conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """The states before the first step, in the parameters' dtypes or this one."""
        conv, ssm = self.conv1d.weight, self.dt_proj.weight
        return (
            conv.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype),
            ssm.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype),
        )

    def _get_states_from_cache(
        self, inference_params: Any, batch_size: int, initialize_states: bool = False
    ) -> tuple[Tensor, Tensor]:
        if self.layer_idx is None:
            raise ValueError("layer_idx is None, expected a number: it is the key in the cache")
        cache = inference_params.key_value_memory_dict
        if self.layer_idx not in cache:
            cache[self.layer_idx] = self.allocate_inference_cache(batch_size, 0)
        elif initialize_states:
            for state in cache[self.layer_idx]:
                state.zero_()
        states: tuple[Tensor, Tensor] = cache[self.layer_idx]
        return states
