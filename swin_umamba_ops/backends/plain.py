"""Operations in plain PyTorch, shared by backends or used if there are no kernels: any device, any
floating dtype, derivatives of any order.

The fused ops' arguments are those of the kernels in protocols.py, except that images are (B, C, H,
W).
"""

from __future__ import annotations

import math
from operator import index

import torch
from torch import Tensor
from torch.nn import functional as F

from swin_umamba_ops.inputs import ScanInputs
from swin_umamba_ops.numerics import NORMALISED_RESIDUAL, softplus, state_dtype


def layer_norm(
    x: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out_dtype: torch.dtype,
) -> Tensor:
    """LayerNorm(x) over the last axis, computed in float32 at least, times silu(gate) if given."""
    wide = state_dtype(x.dtype)
    out = F.layer_norm(x.to(wide), weight.shape, weight.to(wide), bias.to(wide), eps)
    if gate is not None:
        out = out * F.silu(gate)
    return out.to(out_dtype)


def depthwise_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """silu(conv(x) + bias) of x (B, H, W, D), contiguous."""
    weight = weight.to(x.dtype)
    # A view that is already stored channels last.
    images = x.contiguous().permute(0, 3, 1, 2)
    padding = weight.shape[-1] // 2
    out = F.conv2d(
        images,
        weight,
        None if bias is None else bias.to(x.dtype),
        padding=padding,
        groups=x.shape[-1],
    )
    return F.silu(out).permute(0, 2, 3, 1).contiguous()


def instance_norm_act(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    kind: int,
    eps: float,
    slope: float,
) -> Tensor:
    """leaky_relu(InstanceNorm(x) * weight + bias + residual, slope) of x (B, C, H, W)."""
    if x.shape[0] > 0:
        out = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    else:  # PyTorch's own does not accept a weight for an empty batch
        out = F.instance_norm(x, eps=eps)
        if weight is not None and bias is not None:
            out = out * weight[:, None, None] + bias[:, None, None]
    if residual is not None:
        normalised = kind == NORMALISED_RESIDUAL
        out = out + (F.instance_norm(residual, eps=eps) if normalised else residual)
    return out if slope == 1.0 else F.leaky_relu(out, slope)


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """conv2d(x, weight, padding=1)."""
    return F.conv2d(x, weight, padding=1)


def norm_act_conv3x3(x: Tensor, weight: Tensor, eps: float, slope: float) -> Tensor:
    """conv3x3(leaky_relu(InstanceNorm(x), slope), weight)."""
    return conv3x3(instance_norm_act(x, None, None, None, 0, eps, slope), weight)


def mlp_gelu(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """gelu(x @ weight1.T + bias1) @ weight2.T + bias2 of x (..., C), in x's dtype."""
    dtype = x.dtype
    hidden = F.gelu(F.linear(x, weight1.to(dtype), bias1.to(dtype)))
    return F.linear(hidden, weight2.to(dtype), bias2.to(dtype))


def response_to_state(inputs: ScanInputs, state: Tensor) -> tuple[Tensor, Tensor]:
    """What a state (B, D, N) before the first step adds to a scan's output (B, D, L) and last
    state: h_l = exp(A (dt_0 + ... + dt_l)) h_{-1}. In the dtype of A."""
    A, Cs = inputs.A, inputs.Cs.to(inputs.A.dtype)
    dt = inputs.delta.to(A.dtype)
    if inputs.delta_bias is not None:
        dt = dt + inputs.delta_bias[:, None]
    if inputs.delta_softplus:
        dt = softplus(dt)
    decay = torch.exp(A[:, :, None] * dt.cumsum(2)[:, :, None])  # (B, D, N, L)
    states = (decay * state.to(decay.dtype)[..., None]).unflatten(1, (Cs.shape[1], -1))
    out = torch.einsum("bgdnl,bgnl->bgdl", states, Cs).flatten(1, 2)
    return out, states[..., -1].flatten(1, 2)


def complex_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`reference.selective_scan` with complex A, in about 2 sqrt(L) Python steps instead of L.

    The sequence is cut into C chunks of T steps: T steps over all chunks at once, each starting
    from zero; then C steps over the chunks' last states; then the decayed entering state is added
    to each state. Holds the states of all steps.
    """
    wide = state_dtype(u.dtype)
    of_state = torch.promote_types(wide, torch.complex32)
    batch, _, length = map(index, u.shape)
    per_chunk = math.isqrt(length - 1) + 1
    chunks = -(-length // per_chunk)

    def cut(t: Tensor) -> Tensor:
        """(..., L) to (..., C, T). Zero padding: steps with dt = 0 leave a state unchanged."""
        padded = F.pad(t, (0, chunks * per_chunk - length))
        return padded.view(*t.shape[:-1], chunks, per_chunk)

    A = A.to(of_state)[..., None]  # (D, N, 1)
    dt = delta.to(wide) if delta_bias is None else delta.to(wide) + delta_bias.to(wide)[:, None]
    if delta_softplus:
        dt = softplus(dt)
    dt, inputs = cut(dt)[:, :, None], cut(dt * u.to(wide))[:, :, None]  # (B, D, 1, C, T)
    channels_per_group = u.shape[1] // Bs.shape[1]
    Bs, Cs = (  # (B, D, N, C, T)
        cut(t.to(of_state)).repeat_interleave(channels_per_group, dim=1) for t in (Bs, Cs)
    )

    state = A.new_zeros(batch, *A.shape[:2], chunks)
    local = []
    for step in range(per_chunk):
        state = torch.exp(dt[..., step] * A) * state + Bs[..., step] * inputs[..., step]
        local.append(state)
    states = torch.stack(local, dim=-1)  # (B, D, N, C, T)
    decay = torch.exp(dt.cumsum(-1) * A[..., None])  # from the start of its chunk on

    carry = (
        state.new_zeros(state.shape[:3]) if initial_state is None else initial_state.to(of_state)
    )
    entering = []
    for chunk in range(chunks):
        entering.append(carry)
        carry = decay[..., chunk, -1] * carry + state[..., chunk]
    states = states + decay * torch.stack(entering, dim=-1)[..., None]

    out = 2 * (Cs * states).sum(2).real.flatten(-2)[..., :length]
    return out if Ds is None else out + Ds.to(wide)[:, None] * u.to(wide), carry


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    Ds: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    """One step with heads: state (B, H, D, N), changed in place; x, dt (B, H, D); A (H, D, N); Bs,
    Cs (B, H, N); Ds, dt_bias (H, D). Returns y (B, H, D), float32 at least."""
    wide = state_dtype(torch.promote_types(x.dtype, state.dtype))
    x, dt, A, Bs, Cs = (t.to(wide) for t in (x, dt, A, Bs, Cs))
    if dt_bias is not None:
        dt = dt + dt_bias.to(wide)
    if dt_softplus:
        dt = softplus(dt)
    now = state.to(wide) * torch.exp(dt.unsqueeze(-1) * A)
    now = now + (dt * x).unsqueeze(-1) * Bs.unsqueeze(2)
    state.copy_(now.detach())  # a cache: its content has no gradient
    y = torch.einsum("bhdn,bhn->bhd", now, Cs)
    return y if Ds is None else y + Ds.to(wide) * x


def segmentation_sums(logits: Tensor, target: Tensor) -> Tensor:
    """The sums needed for soft Dice and cross-entropy: see `swin_umamba_ops.segmentation_sums`."""
    known = target != -1
    # The backward pass keeps only two maps like the logits, and masks.
    log_probabilities = logits.log_softmax(1, dtype=state_dtype(logits.dtype))
    own = F.nll_loss(log_probabilities, target, ignore_index=-1, reduction="none")
    classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = target[:, None] == classes
    foreground = log_probabilities.exp()[:, 1:]
    over = (2, 3)
    overlap = torch.where(truth, foreground, 0).sum(over)
    both = torch.where(known[:, None], foreground, 0).sum(over) + truth.sum(over)
    first = torch.stack((own.sum((1, 2)), known.sum((1, 2)).to(own.dtype)), 1)
    return torch.cat((first, overlap, both), 1)
