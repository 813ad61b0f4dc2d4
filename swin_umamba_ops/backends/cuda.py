"""The CUDA kernels of csrc/cuda: allocation, and addresses and strides for the compiled module.

Half inputs in shapes that the matrix instructions take go to the image kernels, which make dt
themselves from the projection; every other input has dt made by a matrix product and goes to the
general kernels. Both write float32 sums in place: no direction has a copy of its own. Images with
one state a channel have kernels of either kind that keep all they scan in registers.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._cuda_launch import (
    CHUNK,
    Addresses,
    address,
    make_plan,
    run,
    tiles,
    why_too_large,
)
from swin_umamba_ops.backends._cuda_sums import DTYPES, Sums
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

chunk_length = CHUNK
_SUM_ROWS = 8  # that blocks add the parameters' gradients to: a row an image takes much memory
_DIRECTIONS = 4
_HALF = (torch.float16, torch.bfloat16)
_IMAGE_STATES = (1, 4, 8, 16, 32, 64)  # image_kernels_serve() in csrc/cuda/launch.h
_MIN_CAPABILITY = (7, 5)


@functools.cache
def why_unusable() -> str | None:
    module, reason = _extension.load()
    if module is None:
        return reason
    if not hasattr(module, "cuda"):
        return _extension.why_without("cuda")
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    driver, runtime = module.cuda.driver_version(), module.cuda.runtime_version()
    if driver // 1000 < runtime // 1000:
        return (
            f"the driver serves CUDA {driver // 1000}.{driver % 1000 // 10}, the kernels were "
            f"built with {runtime // 1000}.{runtime % 1000 // 10}: update the driver"
        )
    return None


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type != "cuda":
        return f"it serves CUDA tensors, not {device.type}"
    if dtype not in DTYPES:
        return f"it serves float32, float16 and bfloat16, not {dtype}"
    if torch.cuda.get_device_capability(device) < _MIN_CAPABILITY:
        return "it needs compute capability 7.5 or newer"
    most = _extension.module().cuda.max_states()
    if most < N:
        return f"it serves up to {most} states, not {N}"
    return why_too_large(device, N=N)  # the general kernels, which serve what others do not


def _sum_rows(plan: Any) -> int:
    """Rows of the parameters' gradients: one for each summand where their order must not vary."""
    blocks: int = plan.B * plan.splits
    return blocks if torch.are_deterministic_algorithms_enabled() else min(blocks, _SUM_ROWS)


# ---- ss2d


def _image_kernels_serve(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> bool:
    cuda = _extension.module().cuda
    serve: bool = cuda.image_kernels_serve(DTYPES[dtype], D, N, R, _capability(device))
    sizes = {"dtype": DTYPES[dtype], "N": N, "R": R, "one_state": _one_state(device, dtype, D, N)}
    return serve and why_too_large(device, image=True, **sizes) is None


def _capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _one_state(device: torch.device, dtype: torch.dtype, D: int, N: int) -> int:
    """ScanParams::one_state; 0 where its kernels do not serve."""
    warps: int = _extension.module().cuda.one_state_warps(DTYPES[dtype], D, N, _capability(device))
    return warps


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    """Those of the image kernels, which are several times as fast as the general ones."""
    states = [n for n in _IMAGE_STATES if n >= N]
    if dtype in _HALF and states:
        sizes = states[0], R + R % 2
        if _image_kernels_serve(device, dtype, D, *sizes):
            return sizes
    return N, R


@functools.lru_cache(maxsize=4096)
def _ss2d_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], N: int, R: int
) -> tuple[Any, bool]:
    """The plan of a pass over x of this shape, and whether it is one for the image kernels."""
    B, H, W, D = shape
    L, width = H * W, R + 2 * N
    image = _image_kernels_serve(device, dtype, D, N, R)
    plan = make_plan(
        which, device, image=image, B=B, K=_DIRECTIONS, D=D, H=H, W=W, N=N, R=R,
        one_state=_one_state(device, dtype, D, N), dtype=DTYPES[dtype],
        delta_dtype=DTYPES[torch.float32], a_is_log=1, softplus=1, accumulate=1,
        x_b=L * D, x_l=D, x_d=1, out_b=L * D, out_l=D,
        out_d=1, dout_b=L * D, dout_l=D, dout_d=1, delta_k=B * L * D, delta_b=L * D, delta_l=D,
        delta_d=1, bc_b=L * _DIRECTIONS * width, bc_l=_DIRECTIONS * width, bc_k=width, bc_n=1,
    )  # fmt: skip
    return plan, image


def _low_rank(proj: Tensor, R: int) -> Tensor:
    """The R values for dt in proj (B, H, W, 4, R + 2N), as (4, B * H * W, R)."""
    return proj.flatten(0, 2)[..., :R].transpose(0, 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, where autocast would make it half: the kernels read what they are told."""
    with torch.autocast("cuda", enabled=False):
        return a.float() @ b.float()


def _projected(
    image: bool, plan: Any, proj: Tensor, dt_projs_weight: Tensor
) -> tuple[dict[str, int], Tensor | None]:
    """The addresses of what the projection made, and delta, which must outlive the launch."""
    if image:
        return {"proj": proj.data_ptr(), "dt_weight": dt_projs_weight.data_ptr()}, None
    # (4, B * L, D) in float32: float16 would lose small steps, and more so their gradients.
    delta = _product(_low_rank(proj, plan.R), dt_projs_weight.transpose(1, 2))
    Bs, Cs = _maps(plan, proj.data_ptr(), proj.element_size())
    return {"delta": delta.data_ptr(), "Bs": Bs, "Cs": Cs}, delta


def _maps(plan: Any, proj: int, item: int) -> tuple[int, int]:
    """Where Bs and Cs begin in a projection at this address, of items of this size."""
    return proj + plan.R * item, proj + (plan.R + plan.N) * item


def ss2d_forward(inputs: SS2DInputs, out_dtype: torch.dtype, save: bool) -> tuple[Tensor, Tensor]:
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    B, H, W, D = x.shape
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    plan, image = _ss2d_plan("FORWARD", x.device, x.dtype, x.shape, N, R)
    projected, delta = _projected(image, plan, proj, dt_projs_weight)
    y = torch.zeros_like(x, dtype=torch.float32)
    shape = (B, _DIRECTIONS, tiles(H * W), D, N) if save else (0,)
    states = x.new_empty(shape, dtype=torch.float32)
    addresses = Addresses(
        x=x.data_ptr(), A=A_logs.data_ptr(), Ds=Ds.data_ptr(), bias=dt_projs_bias.data_ptr(),
        out=y.data_ptr(), states=states.data_ptr() if save else 0, **projected,
    )  # fmt: skip
    run("FORWARD", plan, x, addresses)
    del delta  # not before the launch is queued: the allocator may hand its memory on
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
    sums = Sums((dx, dproj), tuple(small), rows)
    at_dx, at_dproj, at_dA, at_dDs, at_dbias, *at_dweight = sums.addresses
    if image:
        ddelta = None
        outputs = {"dproj": at_dproj, "ddt_weight": at_dweight[0]}
    else:
        assert delta is not None
        ddelta = torch.empty_like(delta)
        dBs, dCs = _maps(plan, at_dproj, 4)
        outputs = {"dBs": dBs, "dCs": dCs, "ddelta": ddelta.data_ptr()}
    addresses = Addresses(
        x=x.data_ptr(), A=A_logs.data_ptr(), Ds=Ds.data_ptr(), bias=dt_projs_bias.data_ptr(),
        states=states.data_ptr(), dout=dy.data_ptr(), dx=at_dx, dA=at_dA, dDs=at_dDs,
        dbias=at_dbias, **projected, **outputs,
    )  # fmt: skip
    run("BACKWARD", plan, x, addresses, sum_rows=rows)
    del delta
    sums.finish()
    if ddelta is not None:
        _low_rank(dproj, R).copy_(_product(ddelta, dt_projs_weight))
        if not wanted.dt_projs_weight:
            dA, dDs, dbias = small
            return dx, dproj, None, dbias, dA, dDs
        dweight = _product(ddelta.transpose(1, 2), _low_rank(proj, R))
        small.append(dweight.to(dt_projs_weight.dtype))
    dA, dDs, dbias, dweight = small
    return dx, dproj, dweight, dbias, dA, dDs


# ---- selective_scan


@functools.cache
def _sequence_kernels_serve(device: torch.device, dtype: torch.dtype, N: int, L: int) -> bool:
    serve: bool = _extension.module().cuda.sequence_kernels_serve(N, L, _capability(device))
    return serve and why_too_large(device, sequence=1, dtype=DTYPES[dtype], N=N) is None


@functools.lru_cache(maxsize=4096)
def _sequence_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], G: int, N: int,
    delta_softplus: bool, out_dtype: torch.dtype,
) -> Any:  # fmt: skip
    B, D, L = shape
    sequence = _sequence_kernels_serve(device, dtype, N, L)
    return make_plan(
        which, device, B=B, K=1, D=D, H=1, W=L, N=N, G=G, dtype=DTYPES[dtype],
        delta_dtype=DTYPES[dtype], out_dtype=DTYPES[out_dtype],
        softplus=int(delta_softplus), sequence=int(sequence), x_b=D * L, x_d=L, x_l=1,
        delta_b=D * L, delta_d=L, delta_l=1, bc_b=G * N * L, bc_k=N * L, bc_n=L, bc_l=1,
        out_b=D * L, out_d=L, out_l=1, dout_b=D * L, dout_d=L, dout_l=1,
    )  # fmt: skip


def selective_scan_forward(
    inputs: ScanInputs, out_dtype: torch.dtype, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    u, delta, A, Bs, Cs, Ds, delta_bias, softplus = inputs
    plan = _sequence_plan(
        "FORWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], softplus, out_dtype
    )
    out = torch.empty_like(u, dtype=out_dtype)
    last = u.new_empty((plan.B, plan.D, plan.N), dtype=torch.float32)
    shape = (plan.B, tiles(plan.W), plan.D, plan.N) if save else (0,)
    states = u.new_empty(shape, dtype=torch.float32)
    addresses = Addresses(
        x=u.data_ptr(), delta=delta.data_ptr(), A=A.data_ptr(), Bs=Bs.data_ptr(), Cs=Cs.data_ptr(),
        Ds=address(Ds), bias=address(delta_bias), out=out.data_ptr(), last_state=last.data_ptr(),
        states=states.data_ptr() if save else 0,
    )  # fmt: skip
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
    plan = _sequence_plan("BACKWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], softplus, u.dtype)
    if not (plan.sequence and dout.dtype == u.dtype):
        dout = dout.float()
    du, ddelta, dA, dBs, dCs = (torch.empty_like(t) for t in (u, delta, A, Bs, Cs))
    dDs, dbias = A.new_empty(plan.D), A.new_empty(plan.D)
    rows = _sum_rows(plan)
    sums = Sums((dBs, dCs), (dA, dDs, dbias), rows)
    at_dBs, at_dCs, at_dA, at_dDs, at_dbias = sums.addresses
    addresses = Addresses(
        x=u.data_ptr(), delta=delta.data_ptr(), A=A.data_ptr(), Bs=Bs.data_ptr(), Cs=Cs.data_ptr(),
        Ds=address(Ds), bias=address(delta_bias), states=states.data_ptr(), dout=dout.data_ptr(),
        dlast=address(dlast), dx=du.data_ptr(), ddelta=ddelta.data_ptr(), dBs=at_dBs, dCs=at_dCs,
        dA=at_dA, dDs=at_dDs, dbias=at_dbias,
    )  # fmt: skip
    run("BACKWARD", plan, u, addresses, sum_rows=rows, dout_dtype=DTYPES[dout.dtype])
    sums.finish()
    return du, ddelta, dA, dBs, dCs, dDs, dbias
