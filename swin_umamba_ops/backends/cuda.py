"""The CUDA kernels of csrc/cuda: allocation, and addresses and strides for the compiled module.

Shapes supported by the matrix instructions go to the image kernels, which compute dt themselves
from the projection; for all other inputs dt comes from a matrix product and goes to the strided
kernels. Both add float32 sums in place: no direction has its own copy. For images with one state
per channel both kinds have kernels that keep everything they scan in registers.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _architectures, _extension
from swin_umamba_ops.backends._cuda_launch import (
    DTYPES,
    address,
    chunk_length,
    compiled,
    make_plan,
    run,
    tiles,
    why_too_large,
)
from swin_umamba_ops.backends._cuda_reduction import GradientReduction
from swin_umamba_ops.backends.protocols import Gradients
from swin_umamba_ops.inputs import (
    ALL_SCAN,
    ALL_SS2D,
    ScanInputs,
    ScanWanted,
    SS2DInputs,
    SS2DWanted,
)
from swin_umamba_ops.numerics import as_dtype
from swin_umamba_ops.scan_order import DIRECTIONS

__all__ = [
    "chunk_length",
    "selective_scan_backward",
    "selective_scan_forward",
    "ss2d_backward",
    "ss2d_forward",
    "ss2d_sizes",
    "why_unsupported",
    "why_unusable",
]
_SUM_ROWS = 8  # rows for the parameters' gradients: one row per image would take much memory
_PIECES = 2**5 * 3 * 5  # maximum number of pieces of positions for products that sum over them


@functools.cache
def why_unusable() -> str | None:
    module, reason = _extension.load()
    if module is None:
        return reason
    if not hasattr(module, "cuda"):
        return _extension.why_without("cuda")
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    build = module.build_info()
    return _why_too_old(module.cuda.driver_version(), build["min_driver"], build)


def _why_too_old(driver: int, minimum: str, build: dict[str, Any]) -> str | None:
    """Why a driver of this version (in CUDA's numbering) cannot load what a build made; minimum:
    the CUDA version that it must support."""
    version = driver // 1000, driver % 1000 // 10
    if version >= tuple(int(part) for part in minimum.split(".")):
        return None
    return (
        f"the driver supports CUDA {version[0]}.{version[1]}, the kernels, built with "
        f"{build['cuda_version']}, need a driver for CUDA {minimum} or newer: update the driver"
    )


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type != "cuda":
        return f"it supports CUDA tensors, not {device.type}"
    if dtype not in DTYPES:
        return f"it supports float32, float16 and bfloat16, not {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if 10 * capability[0] + capability[1] < compiled().MIN_CAPABILITY:
        return f"it needs compute capability {compiled().MIN_CAPABILITY / 10} or newer"
    if _code_for(capability) is None:
        return _architectures.advice(capability, _built_for())
    if _architectures.runs_ptx(capability, _built_for()):  # unknown to older drivers
        build = _extension.module().build_info()
        reason = _why_too_old(compiled().driver_version(), build["cuda_version"], build)
        if reason is not None:
            major, minor = capability
            return f"{reason}, or install again with SWIN_UMAMBA_CUDA_ARCHS={major}.{minor}"
    if compiled().MAX_STATES < N:
        return f"it supports up to {compiled().MAX_STATES} states, not {N}"
    # The strided kernels, which support everything else.
    return why_too_large(device, compiled().Family.STRIDED, N=N)


def _sum_rows(plan: Any) -> int:
    """Rows of the parameters' gradients: one per summand if their order must not vary."""
    blocks: int = plan.B * plan.splits
    return blocks if torch.are_deterministic_algorithms_enabled() else min(blocks, _SUM_ROWS)


@functools.cache
def _built_for() -> tuple[str, ...]:
    return tuple(_extension.module().build_info()["cuda_archs"])


@functools.cache
def _code_for(capability: tuple[int, int]) -> tuple[int, int] | None:
    return _architectures.code_for(capability, _built_for())


def _capability(device: torch.device) -> int:
    """The capability of the code that runs, which is lower than the device's if only older PTX
    matches."""
    code = _code_for(torch.cuda.get_device_capability(device))
    assert code is not None, "why_unsupported() refuses devices without code"
    return 10 * code[0] + code[1]


# ---- ss2d


def _one_state_warps(device: torch.device, dtype: torch.dtype, D: int, N: int) -> int:
    """OneStateParams::one_state; 0 if its kernels do not apply."""
    warps: int = compiled().one_state_warps(DTYPES[dtype], D, N, _capability(device))
    return warps


def _ss2d_family(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> Any:
    """The fastest kernel family for such images."""
    family = compiled().Family
    warps = _one_state_warps(device, dtype, D, N)
    if compiled().image_kernels_serve(DTYPES[dtype], D, N, R, _capability(device)):
        image = family.ONE_STATE_IMAGE if warps else family.IMAGE
        sizes = {"dtype": DTYPES[dtype], "N": N, "R": R} | ({"one_state": warps} if warps else {})
        if why_too_large(device, image, **sizes) is None:
            return image
    return family.ONE_STATE if warps else family.STRIDED


def _makes_dt(family: Any) -> bool:
    """Whether a family's kernels compute dt from the projection."""
    return family in (compiled().Family.IMAGE, compiled().Family.ONE_STATE_IMAGE)


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    """The states and ranks of the image kernels, several times as fast as the strided ones."""
    states = [n for n in compiled().IMAGE_STATES if n >= N]
    if states:
        sizes = states[0], _padded_rank(R) if states[0] == 1 else R + R % 2
        if _makes_dt(_ss2d_family(device, dtype, D, *sizes)):
            return sizes
    return N, R


def _padded_rank(R: int) -> int:
    """The next even rank, or an odd one for which rows of proj are multiples of 16 bytes."""
    wide = R + -(R + 2) % 8
    return wide if R % 2 == 1 and -(-wide // 8) == -(-R // 8) else R + R % 2


@functools.lru_cache(maxsize=4096)
def _ss2d_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], N: int, R: int
) -> tuple[Any, bool]:
    """The plan of a pass over x of this shape, and whether its kernels compute dt."""
    B, H, W, D = shape
    L, width = H * W, R + 2 * N
    family = _ss2d_family(device, dtype, D, N, R)
    fields = {"B": B, "K": DIRECTIONS, "D": D, "H": H, "W": W, "N": N, "R": R}
    fields |= {"dtype": DTYPES[dtype], "a_is_log": 1}
    if N == 1 and family != compiled().Family.STRIDED:
        fields["one_state"] = _one_state_warps(device, dtype, D, N)
    if not _makes_dt(family):
        fields |= {"delta_k": B * L * D, "delta_b": L * D, "delta_l": D, "delta_d": 1}
        fields |= {"bc_b": L * DIRECTIONS * width, "bc_l": DIRECTIONS * width}
        fields |= {"bc_k": width, "bc_n": 1}
    if family == compiled().Family.STRIDED:
        fields |= {"delta_dtype": DTYPES[torch.float32], "softplus": 1, "accumulate": 1}
        for name in ("x", "out", "dout"):
            fields |= {f"{name}_b": L * D, f"{name}_l": D, f"{name}_d": 1}
    return make_plan(which, device, family, **fields), _makes_dt(family)


def _low_rank(proj: Tensor, R: int) -> Tensor:
    """The R values for dt in proj (B, H, W, 4, R + 2N), as (4, B * H * W, R)."""
    return proj.flatten(0, 2)[..., :R].transpose(0, 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, even under autocast: the kernels read float32."""
    with torch.autocast("cuda", enabled=False):
        return a.float() @ b.float()


@functools.cache
def _pieces(positions: int, minimum: int) -> int:
    """Number of equal pieces with at least this many positions each."""
    common = math.gcd(positions, _PIECES)
    wanted = [n for n in range(1, common + 1) if common % n == 0 and positions // n >= minimum]
    return max(wanted, default=1)


def _weight_gradient(ddelta: Tensor, proj: Tensor, R: int) -> Tensor:
    """(4, D, R) from ddelta (4, B * H * W, D): in pieces, since BLAS would assign all positions to
    the few multiprocessors that R columns occupy."""
    K, positions, D = ddelta.shape
    pieces = _pieces(positions, max(256, 8 * R))
    if pieces == 1:
        return _product(ddelta.transpose(1, 2), _low_rank(proj, R))
    rows = proj.view(pieces, -1, K, proj.shape[-1])[..., :R].permute(2, 0, 1, 3)
    return _product(ddelta.view(K, pieces, -1, D).transpose(2, 3), rows).sum(1)


def _projected(
    image: bool, plan: Any, proj: Tensor, dt_projs_weight: Tensor
) -> tuple[dict[str, int], Tensor | None]:
    """The addresses of the projection's results, and delta, which must outlive the launch."""
    if image:
        return {"proj": proj.data_ptr(), "dt_weight": dt_projs_weight.data_ptr()}, None
    # (4, B * L, D) in float32: float16 would lose small steps, and more so their gradients.
    delta = _product(_low_rank(proj, plan.R), dt_projs_weight.transpose(1, 2))
    Bs, Cs = _maps(plan, proj.data_ptr(), proj.element_size())
    return {"delta": delta.data_ptr(), "Bs": Bs, "Cs": Cs}, delta


def _maps(plan: Any, proj: int, item: int) -> tuple[int, int]:
    """The addresses of Bs and Cs in a projection at this address, with items of this size."""
    return proj + plan.R * item, proj + (plan.R + plan.N) * item


def ss2d_forward(inputs: SS2DInputs, out_dtype: torch.dtype, save: bool) -> tuple[Tensor, Tensor]:
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    B, H, W, D = x.shape
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    plan, image = _ss2d_plan("FORWARD", x.device, x.dtype, x.shape, N, R)
    projected, delta = _projected(image, plan, proj, dt_projs_weight)
    y = torch.zeros_like(x, dtype=torch.float32)
    shape = (B, DIRECTIONS, tiles(H * W), D, N) if save else (0,)
    states = x.new_empty(shape, dtype=torch.float32)
    addresses = {
        "x": x.data_ptr(), "A": A_logs.data_ptr(), "Ds": Ds.data_ptr(),
        "bias": dt_projs_bias.data_ptr(), "out": y.data_ptr(),
        "states": states.data_ptr() if save else 0, **projected,
    }  # fmt: skip
    run("FORWARD", plan, x, addresses)
    del delta  # not before the launch is queued: the allocator may reuse its memory
    return as_dtype(y, out_dtype), states


def ss2d_backward(
    dy: Tensor, inputs: SS2DInputs, states: Tensor, wanted: SS2DWanted = ALL_SS2D
) -> Gradients:
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    dy = as_dtype(dy, torch.float32)
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    plan, image = _ss2d_plan("BACKWARD", x.device, x.dtype, x.shape, N, R)
    projected, delta = _projected(image, plan, proj, dt_projs_weight)
    dx, dproj = torch.empty_like(x), torch.empty_like(proj)
    small = [torch.empty_like(t) for t in (A_logs, Ds, dt_projs_bias)]
    if image:
        small.append(torch.empty_like(dt_projs_weight))
    rows = _sum_rows(plan)
    reduction = GradientReduction((dx, dproj), tuple(small), rows)
    at_dx, at_dproj, at_dA, at_dDs, at_dbias, *at_dweight = reduction.addresses
    if image:
        ddelta = None
        outputs = {"dproj": at_dproj, "ddt_weight": at_dweight[0]}
    else:
        assert delta is not None
        ddelta = torch.empty_like(delta)
        dBs, dCs = _maps(plan, at_dproj, 4)
        outputs = {"dBs": dBs, "dCs": dCs, "ddelta": ddelta.data_ptr()}
    addresses = {
        "x": x.data_ptr(), "A": A_logs.data_ptr(), "Ds": Ds.data_ptr(),
        "bias": dt_projs_bias.data_ptr(), "states": states.data_ptr(), "dout": dy.data_ptr(),
        "dx": at_dx, "dA": at_dA, "dDs": at_dDs, "dbias": at_dbias, "sum_rows": rows,
        **projected, **outputs,
    }  # fmt: skip
    run("BACKWARD", plan, x, addresses)
    del delta
    reduction.finish()
    if ddelta is not None:
        _low_rank(dproj, R).copy_(_product(ddelta, dt_projs_weight))
        if not wanted.dt_projs_weight:
            dA, dDs, dbias = small
            return dx, dproj, None, dbias, dA, dDs
        dweight = _weight_gradient(ddelta, proj, R)
        small.append(dweight.to(dt_projs_weight.dtype))
    dA, dDs, dbias, dweight = small
    return dx, dproj, dweight, dbias, dA, dDs


# ---- selective_scan


@functools.cache
def _sequence_family(device: torch.device, dtype: torch.dtype, N: int, L: int) -> Any:
    """The fastest kernel family for such sequences."""
    family = compiled().Family
    if compiled().sequence_kernels_serve(N, L, _capability(device)):
        reason = why_too_large(device, family.SEQUENCE, dtype=DTYPES[dtype], N=N)
        if reason is None:
            return family.SEQUENCE
    return family.STRIDED


@functools.lru_cache(maxsize=4096)
def _sequence_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], G: int, N: int,
    delta_softplus: bool, out_dtype: torch.dtype,
) -> tuple[Any, bool]:  # fmt: skip
    """The plan of a pass over u of this shape, and whether its kernels take dout in u's dtype."""
    B, D, L = shape
    family = _sequence_family(device, dtype, N, L)
    plan = make_plan(
        which, device, family, B=B, K=1, D=D, H=1, W=L, N=N, G=G, dtype=DTYPES[dtype],
        delta_dtype=DTYPES[dtype], out_dtype=DTYPES[out_dtype], softplus=int(delta_softplus),
        x_b=D * L, x_d=L, x_l=1, delta_b=D * L, delta_d=L, delta_l=1,
        bc_b=G * N * L, bc_k=N * L, bc_n=L, bc_l=1,
        out_b=D * L, out_d=L, out_l=1, dout_b=D * L, dout_d=L, dout_l=1,
    )  # fmt: skip
    return plan, family == compiled().Family.SEQUENCE


def selective_scan_forward(
    inputs: ScanInputs, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    u, delta, A, Bs, Cs, Ds, delta_bias, softplus = inputs
    plan, _ = _sequence_plan(
        "FORWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], softplus, out_dtype
    )
    out = torch.empty_like(u, dtype=out_dtype)
    last = u.new_empty((plan.B, plan.D, plan.N), dtype=torch.float32)
    shape = (plan.B, tiles(plan.W), plan.D, plan.N) if save else (0,)
    states = u.new_empty(shape, dtype=torch.float32)
    addresses = {
        "x": u.data_ptr(), "delta": delta.data_ptr(), "A": A.data_ptr(), "Bs": Bs.data_ptr(),
        "Cs": Cs.data_ptr(), "Ds": address(Ds), "bias": address(delta_bias),
        "out": out.data_ptr(), "last_state": last.data_ptr(),
        "states": states.data_ptr() if save else 0,
    }  # fmt: skip
    run("FORWARD", plan, u, addresses)
    return out, last, states


def selective_scan_backward(
    dout: Tensor,
    dlast: Tensor | None,
    inputs: ScanInputs,
    states: Tensor,
    wanted: ScanWanted = ALL_SCAN,
) -> Gradients:
    u, delta, A, Bs, Cs, Ds, delta_bias, softplus = inputs
    plan, takes_own_dtype = _sequence_plan(
        "BACKWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], softplus, u.dtype
    )
    if not (takes_own_dtype and dout.dtype == u.dtype):
        dout = dout.float()
    du, ddelta, dA, dBs, dCs = (torch.empty_like(t) for t in (u, delta, A, Bs, Cs))
    dDs, dbias = A.new_empty(plan.D), A.new_empty(plan.D)
    rows = _sum_rows(plan)
    reduction = GradientReduction((dBs, dCs), (dA, dDs, dbias), rows)
    at_dBs, at_dCs, at_dA, at_dDs, at_dbias = reduction.addresses
    addresses = {
        "x": u.data_ptr(), "delta": delta.data_ptr(), "A": A.data_ptr(), "Bs": Bs.data_ptr(),
        "Cs": Cs.data_ptr(), "Ds": address(Ds), "bias": address(delta_bias),
        "states": states.data_ptr(), "dout": dout.data_ptr(), "dout_dtype": DTYPES[dout.dtype],
        "dlast": address(dlast), "dx": du.data_ptr(), "ddelta": ddelta.data_ptr(), "dBs": at_dBs,
        "dCs": at_dCs, "dA": at_dA, "dDs": at_dDs, "dbias": at_dbias, "sum_rows": rows,
    }  # fmt: skip
    run("BACKWARD", plan, u, addresses)
    reduction.finish()
    return du, ddelta, dA, dBs, dCs, dDs, dbias
