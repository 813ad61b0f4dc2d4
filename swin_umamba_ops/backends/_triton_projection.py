"""Operations of the Triton backend on whole images around the scan, forward and backward: the
low-rank projection that yields dt, and the directions' Ds."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from swin_umamba_ops.backends._launch_cache import launch
from swin_umamba_ops.backends._triton_tiles import alignment, common
from swin_umamba_ops.backends.triton_kernels import parameters
from swin_umamba_ops.backends.triton_kernels import project as kernels
from swin_umamba_ops.scan_order import DIRECTIONS


def _blocks(proj: Tensor, dt_projs_weight: Tensor, N: int, channels: int) -> dict[str, int]:
    """Constants of the projection kernels, for a limited number of channels at a time."""
    D, R = dt_projs_weight.shape[1:]
    item = proj.element_size()
    return {
        "N": N, "BLOCK_D": 64, "BLOCK_R": min(64, max(16, triton.next_power_of_2(R))),
        "BLOCK_N": min(64, triton.next_power_of_2(2 * N)),
        "ADJACENT": max(1, common(alignment(proj, dt_projs_weight), R * item, N * item) // item),
        "CHANNELS": math.gcd(channels, D),
    }  # fmt: skip


def project(
    proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, dt: Tensor,
    maps: Tensor, dmaps: Tensor | None,
) -> None:  # fmt: skip
    """Fill dt (4, B, L, D) and maps, Bs and Cs (B, L, 4, 2N), in float32; and dmaps, like maps,
    if given, with zeros."""
    D, R = dt_projs_weight.shape[1:]
    rows = maps.shape[0] * maps.shape[1]
    constants = _blocks(proj, dt_projs_weight, maps.shape[3] // 2, 4) | {"BLOCK_L": 64}
    launch(
        kernels.image_kernel, (-(-rows // 64) * -(-D // constants["BLOCK_D"]), DIRECTIONS),
        (proj, dt_projs_weight, dt_projs_bias, dt, maps, dmaps, rows, D, R), constants,
        {"num_warps": 4},
    )  # fmt: skip


def project_backward(
    ddt: Tensor, dmaps: Tensor, proj: Tensor, dt_projs_weight: Tensor, weight_wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients of proj and, if wanted, of dt_projs_weight, from those of dt (4, B, L, D),
    before softplus, and of maps (B, L, 4, 2N)."""
    D, R = dt_projs_weight.shape[1:]
    rows = dmaps.shape[0] * dmaps.shape[1]
    constants = _blocks(proj, dt_projs_weight, dmaps.shape[3] // 2, 8)
    block = 128
    if proj.dtype == torch.float32:
        # Not a matrix product: larger blocks would spill.
        block, constants["BLOCK_R"] = 64, 16
    dproj = torch.empty_like(proj)
    pieces, width, columns = -(-rows // block), DIRECTIONS * D * R, 32
    by_piece = dmaps.new_empty((pieces, width)) if weight_wanted else None
    launch(
        kernels.image_gradient_kernel, (pieces, DIRECTIONS),
        (ddt, dmaps, proj, dt_projs_weight, dproj, by_piece, rows, D, R),
        constants | {"BLOCK_L": block}, {"num_warps": 4},
    )  # fmt: skip
    if by_piece is None:
        return dproj, None
    dweight = torch.empty_like(dt_projs_weight)
    launch(
        parameters.total_kernel, (-(-width // columns),), (by_piece, dweight, pieces, width),
        {"ROWS": 32, "COLUMNS": columns},
    )  # fmt: skip
    return dproj, dweight


def skip(x: Tensor, Ds: Tensor) -> Tensor:
    """x (B, H, W, D) times the directions' Ds, in float32."""
    y = torch.empty_like(x, dtype=torch.float32)
    D = x.shape[-1]
    rows, piece, block = x.numel() // D, math.gcd(8, D), (32, 64)
    launch(
        parameters.skip_kernel, (-(-rows // block[0]) * -(-D // block[1]),),
        (x, Ds, y, rows, D // piece),
        {"PIECE": piece, "ROWS": block[0], "COLUMNS": block[1]},
    )  # fmt: skip
    return y
