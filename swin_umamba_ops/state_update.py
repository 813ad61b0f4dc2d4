"""One step of the selective scan, for models that generate step by step."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops import backends
from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.checks import check_state_update
from swin_umamba_ops.ops._check import is_shape
from swin_umamba_ops.resolving import resolved


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
    *,
    backend: str | None = "auto",
) -> Tensor:
    """One step of the scan, with mamba-ssm's arguments and semantics; `state` is updated in place.

    state: (B, D, N); x, dt: (B, D); A: (D, N); B, C: (B, N) or (B, G, N), channel d in group d //
    (D // G); D, dt_bias: (D,); z: (B, D), gates the output with SiLU. Or with H heads: state (B, H,
    D, N); x, dt, z (B, H, D); A (H, D, N); D, dt_bias (H, D); head h in group h // (H // G).
    state_batch_indices: (B,), the rows of a larger state to update. The state keeps its dtype; sums
    are float32 at least. Not differentiable with respect to the state.

    Returns out, of x's shape and dtype. TypeError or ValueError naming what does not fit; complex A
    is not supported.
    """
    tensors = {
        "state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z,
        "dt_bias": dt_bias,
    }  # fmt: skip
    check_state_update(tensors, optional=("D", "z", "dt_bias"))
    kept = state
    if state_batch_indices is not None:
        state = state[state_batch_indices]
    heads = state.dim() == 4
    if state.dim() not in (3, 4):
        raise ValueError(
            f"state has shape {tuple(state.shape)}, expected (B, D, N) or (B, H, D, N)"
        )
    batch, *channels, N = state.shape
    for name, t in (("x", x), ("dt", dt), ("z", z)):
        if t is not None:
            is_shape(name, t, (batch, *channels))
    is_shape("A", A, (*channels, N))
    for name, t in (("D", D), ("dt_bias", dt_bias)):
        if t is not None:
            is_shape(name, t, tuple(channels))
    grouped = []
    for name, t in (("B", B), ("C", C)):
        if t.dim() == 2:
            t = t.unsqueeze(1)
        groups = t.shape[1] if t.dim() == 3 else 0
        if groups == 0 or channels[0] % groups:
            raise ValueError(
                f"{name} has shape {tuple(t.shape)}, expected (B, N), or (B, G, N) with G dividing "
                f"{channels[0]}"
            )
        is_shape(name, t, (batch, groups, N))
        # If a state without heads gets one head per channel, groups become groups of heads.
        grouped.append(t.repeat_interleave(channels[0] // groups, dim=1))

    backend = backends.AUTO if backend is None else backend
    served = resolved("selective_state_update", backend, x.device, x.dtype, N)
    update = served.formulas["selective_state_update"]
    with autocast_off(x):
        if heads:
            y: Tensor = update(state, x, dt, A, *grouped, D, dt_bias, dt_softplus)
        else:
            of_heads = [t if t is None else t.unsqueeze(-1) for t in (x, dt, D, dt_bias)]
            y = update(
                state.unsqueeze(2), *of_heads[:2], A.unsqueeze(1), *grouped, *of_heads[2:],
                dt_softplus,
            ).squeeze(-1)  # fmt: skip
        if state_batch_indices is not None:
            kept[state_batch_indices] = state
        if z is not None:
            y = y * F.silu(z.to(y.dtype))
    return y.to(x.dtype)
