"""Two linear layers with a GELU between them, by Triton and cuBLAS: the hidden layer passes through
memory as rarely as possible, and none of it is kept for the backward pass.

For 16-bit inputs products and GELU are one kernel; in float32 cuBLAS's products are much faster,
and GELU is an in-place pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from swin_umamba_ops.autocast import autocast_off
from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._triton_fused import on_its_device, why_unsupported, why_unusable
from swin_umamba_ops.backends.protocols import ALL_WANTED, Gradients
from swin_umamba_ops.backends.triton_kernels import mlp as kernels
from swin_umamba_ops.inputs import MlpGeluInputs

__all__ = ["mlp_gelu_backward", "mlp_gelu_forward", "why_unsupported", "why_unusable"]

_BLOCK_M, _BLOCK_K = 128, 32  # rows of a tile, and columns of its factors at a time
_BLOCK_E, _BLOCK_E_BACKWARD = 128, 64  # the backward pass has the sums of two tiles in registers
_BLOCK = 1024


def _constants(x: Tensor, block_e: int) -> dict[str, int | bool]:
    return {
        "BLOCK_M": _BLOCK_M, "BLOCK_E": block_e, "BLOCK_K": _BLOCK_K,
        "UPCAST": x.device.type == "cpu",
    }  # fmt: skip


def _hidden(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x @ weight.T + bias), (M, E), of x (M, C)."""
    M, E = x.shape[0], weight.shape[0]
    if x.dtype == torch.float32:
        h = torch.addmm(bias, x, weight.t())
        launch(kernels.activate, (-(-h.numel() // _BLOCK),), (h, h, h.numel()), {"BLOCK": _BLOCK})
        return h
    hidden = x.new_empty((M, E))
    launch(
        kernels.forward, (-(-M // _BLOCK_M) * -(-E // _BLOCK_E),), (x, weight, bias, hidden, M),
        {"E": E, "C": x.shape[1], **_constants(x, _BLOCK_E)}, {"num_warps": 8},
    )  # fmt: skip
    return hidden


def _hidden_gradients(
    dy: Tensor, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden layer, the gradient before GELU, (M, E), and its sum in float32."""
    M, E = x.shape[0], weight1.shape[0]
    if x.dtype == torch.float32:
        hidden, dhidden = torch.addmm(bias1, x, weight1.t()), dy @ weight2
        count = hidden.numel()
        launch(
            kernels.activate_backward, (-(-count // _BLOCK),), (hidden, dhidden, count),
            {"BLOCK": _BLOCK},
        )  # fmt: skip
        return hidden, dhidden, dhidden.sum(0)
    hidden, dhidden = x.new_empty((M, E)), x.new_empty((M, E))
    blocks = -(-M // _BLOCK_M)
    sums = x.new_empty((blocks, E), dtype=torch.float32)
    launch(
        kernels.backward, (blocks * -(-E // _BLOCK_E_BACKWARD),),
        (dy, x, weight1, bias1, weight2, hidden, dhidden, sums, M),
        {"E": E, "C": x.shape[1], "F": dy.shape[1], **_constants(x, _BLOCK_E_BACKWARD)},
        {"num_warps": 8},
    )  # fmt: skip
    return hidden, dhidden, sums.sum(0)


@on_its_device
def mlp_gelu_forward(inputs: MlpGeluInputs) -> Tensor:
    x, weight1, bias1, weight2, bias2 = inputs
    dtype, rows = x.dtype, x.reshape(-1, x.shape[-1])
    with autocast_off(x):
        hidden = _hidden(rows, weight1.to(dtype).contiguous(), bias1.to(dtype))
        y = torch.addmm(bias2.to(dtype), hidden, weight2.to(dtype).t())
    return y.view(*x.shape[:-1], weight2.shape[0])


@on_its_device
def mlp_gelu_backward(
    dy: Tensor, inputs: MlpGeluInputs, wanted: Sequence[bool] = ALL_WANTED
) -> Gradients:
    x, weight1, bias1, weight2, bias2 = inputs
    dtype, rows, drows = x.dtype, x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx, dweight1, dbias1, dweight2, dbias2 = None, None, None, None, None
    with autocast_off(x):
        if any(wanted[:4]):
            used1, used2 = weight1.to(dtype).contiguous(), weight2.to(dtype).contiguous()
            hidden, dhidden, total = _hidden_gradients(drows, rows, used1, bias1.to(dtype), used2)
            if wanted[3]:
                dweight2 = (drows.t() @ hidden).to(weight2.dtype)
            del hidden
            if wanted[0]:
                dx = (dhidden @ used1).view(x.shape)
            if wanted[1]:
                dweight1 = (dhidden.t() @ rows).to(weight1.dtype)
            dbias1 = total.to(bias1.dtype)
        if wanted[4]:
            dbias2 = drows.sum(0, dtype=torch.float32).to(bias2.dtype)
    return dx, dweight1, dbias1, dweight2, dbias2
