"""The CUDA kernels of csrc/cuda: allocation, and addresses and strides for the compiled module.

Half inputs in shapes that the matrix instructions take go to the image kernels, which make dt
themselves from the projection; every other input has dt made by a matrix product and goes to the
general kernels. Both write float32 sums in place: no direction has a copy of its own.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends import _extension
from swin_umamba_ops.backends._cuda_sums import DTYPES, Sums, finish
from swin_umamba_ops.backends._device import current

chunk_length = 32  # kTile in csrc/cuda/mapping.cuh
_WEIGHT_ROWS = 8  # that blocks add dt_projs_weight's gradient to: a row an image takes much memory
_DIRECTIONS = 4
_MIN_CAPABILITY = (7, 5)

Fields = dict[str, Any]


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
    return None if most >= N else f"it serves up to {most} states, not {N}"


# ---- launching


def _plan(which: str, device: torch.device, *, image: bool = False, **fields: int) -> Any:
    """The parameters of a pass, less the addresses: `fields`, and how the work is cut.

    Blocks of channels, and ranges of the sequence by what fills `device`. `image` means the
    kernels that make dt themselves.
    """
    cuda = _extension.module().cuda
    params = cuda.ScanParams(proj=int(image), **fields)
    params.directions = params.K
    with torch.cuda.device(device):
        params.blocks = cuda.channel_blocks(params)
        params.splits = cuda.choose_splits(params, getattr(cuda.Pass, which))
    params.tiles_per_split = _tiles(params.H * params.W, params.splits)
    params.proj = 0
    return params


def _tiles(length: int, splits: int = 1) -> int:
    """Tiles in each of `splits` ranges of a sequence."""
    return -(-length // (chunk_length * splits))


def _launch(params: Any, which: str, device: torch.device) -> None:
    """One pass over everything, or, where determinism asks for it, one launch for each set of
    sums that must not meet in one address at the same time."""
    cuda = _extension.module().cuda
    # The raw handle: a Stream object costs as much as the launch.
    stream = torch._C._cuda_getCurrentRawStream(device.index)
    which = getattr(cuda.Pass, which)
    if not torch.are_deterministic_algorithms_enabled():
        cuda.launch(params, which, stream)
        return
    directions, blocks = params.directions, params.blocks
    params.directions = params.blocks = 1
    for params.first_direction in range(directions):
        for params.first_block in range(blocks):
            cuda.launch(params, which, stream)


def _run(which: str, plan: Any, like: Tensor, **addresses: int) -> None:
    """Run a pass. Cut into splits it takes one before, which finds what enters each."""
    device = like.device
    if plan.splits > 1:
        rows = (plan.B, plan.K, plan.splits, plan.D)
        state = like.new_empty((*rows, plan.N), dtype=torch.float32)
        dt = like.new_empty(rows, dtype=torch.float32)
        addresses |= {"split_state": state.data_ptr(), "split_dt": dt.data_ptr()}
    params = plan.with_fields(**addresses)
    with current(device):
        if plan.splits > 1:
            _launch(params.with_fields(), which + "_SPLITS", device)
        _launch(params, which, device)


def _addresses(**tensors: Tensor | None) -> Fields:
    return {name: t.data_ptr() for name, t in tensors.items() if t is not None}


# ---- ss2d


def _image_kernels_serve(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> bool:
    major, minor = torch.cuda.get_device_capability(device)
    capability = 10 * major + minor
    serve: bool = _extension.module().cuda.image_kernels_serve(DTYPES[dtype], D, N, R, capability)
    return serve


@functools.lru_cache(maxsize=4096)
def _ss2d_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], N: int, R: int
) -> tuple[Any, bool]:
    """The plan of a pass over x of this shape, and whether it is one for the image kernels."""
    B, H, W, D = shape
    L, width = H * W, R + 2 * N
    image = _image_kernels_serve(device, dtype, D, N, R)
    plan = _plan(
        which, device, image=image, B=B, K=_DIRECTIONS, D=D, H=H, W=W, N=N, R=R,
        dtype=DTYPES[dtype], delta_dtype=DTYPES[torch.float32],
        a_is_log=1, softplus=1, accumulate=1, x_b=L * D, x_l=D, x_d=1, out_b=L * D, out_l=D,
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
) -> tuple[Fields, Tensor | None]:
    """The addresses of what the projection made, and delta, which must outlive the launch."""
    if image:
        return _addresses(proj=proj, dt_weight=dt_projs_weight), None
    # (4, B * L, D) in float32: float16 would lose small steps, and more so their gradients.
    delta = _product(_low_rank(proj, plan.R), dt_projs_weight.transpose(1, 2))
    maps = _maps("Bs", "Cs", proj.data_ptr(), proj.element_size(), plan)
    return {"delta": delta.data_ptr(), **maps}, delta


def _maps(Bs: str, Cs: str, proj: int, item: int, plan: Any) -> Fields:
    """Where both maps begin in a projection at the address `proj`, of items of this size."""
    return {Bs: proj + plan.R * item, Cs: proj + (plan.R + plan.N) * item}


def ss2d_forward(
    x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor,
    Ds: Tensor, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    plan, image = _ss2d_plan("FORWARD", x.device, x.dtype, x.shape, N, R)
    projected, delta = _projected(image, plan, proj, dt_projs_weight)
    y = torch.zeros_like(x, dtype=torch.float32)
    B, H, W, D = x.shape
    shape = (B, _DIRECTIONS, _tiles(H * W), D, N) if save else (0,)
    states = x.new_empty(shape, dtype=torch.float32)
    _run(
        "FORWARD", plan, x, **projected,
        **_addresses(x=x, A=A_logs, Ds=Ds, bias=dt_projs_bias, out=y),
        **_addresses(states=states if save else None),
    )  # fmt: skip
    del delta  # not before the launch is queued: the allocator may hand its memory on
    return y.to(out_dtype), states


def ss2d_backward(
    dy: Tensor, x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor,
    A_logs: Tensor, Ds: Tensor, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    plan, image = _ss2d_plan("BACKWARD", x.device, x.dtype, x.shape, N, R)
    projected, delta = _projected(image, plan, proj, dt_projs_weight)
    dy = dy.float()
    dx, dproj = torch.empty_like(x), torch.empty_like(proj)
    dbias, dA, dDs = (torch.empty_like(t) for t in (dt_projs_bias, A_logs, Ds))
    images = plan.B * plan.splits
    rows = Sums(cleared=False, dA=(dA, images), dDs=(dDs, images), dbias=(dbias, images))
    if image:
        dweight, ddelta = torch.empty_like(dt_projs_weight), None
        if not torch.are_deterministic_algorithms_enabled():
            images = min(images, _WEIGHT_ROWS)
        sums = Sums(cleared=True, dx=(dx, 1), dproj=(dproj, 1), ddt_weight=(dweight, images))
        outputs = {**sums.addresses, "weight_rows": images}
    else:
        assert delta is not None
        ddelta = torch.empty_like(delta)
        sums = Sums(cleared=True, dx=(dx, 1), dproj=(dproj, 1))
        maps = _maps("dBs", "dCs", sums.addresses["dproj"], 4, plan)
        outputs = {"dx": sums.addresses["dx"], "ddelta": ddelta.data_ptr(), **maps}
    _run(
        "BACKWARD", plan, x, **projected, **outputs, **rows.addresses,
        **_addresses(x=x, A=A_logs, Ds=Ds, bias=dt_projs_bias, states=states, dout=dy),
    )  # fmt: skip
    del delta
    finish(x.device, sums, rows)
    if ddelta is not None:
        _low_rank(dproj, R).copy_(_product(ddelta, dt_projs_weight))
        dweight = _product(ddelta.transpose(1, 2), _low_rank(proj, R))
        dweight = dweight.to(dt_projs_weight.dtype)
    return dx, dproj, dweight, dbias, dA, dDs


# ---- selective_scan


@functools.cache
def _sequence_kernels_serve(device: torch.device, N: int, L: int) -> bool:
    major, minor = torch.cuda.get_device_capability(device)
    serve: bool = _extension.module().cuda.sequence_kernels_serve(N, L, 10 * major + minor)
    return serve


@functools.lru_cache(maxsize=4096)
def _sequence_plan(
    which: str, device: torch.device, dtype: torch.dtype, shape: tuple[int, ...], G: int, N: int,
    delta_softplus: bool, out_dtype: torch.dtype, aligned: bool,
) -> Any:  # fmt: skip
    B, D, L = shape
    sequence = aligned and _sequence_kernels_serve(device, N, L)
    return _plan(
        which, device, B=B, K=1, D=D, H=1, W=L, N=N, G=G, dtype=DTYPES[dtype],
        delta_dtype=DTYPES[dtype], out_dtype=DTYPES[out_dtype],
        softplus=int(delta_softplus), sequence=int(sequence), x_b=D * L, x_d=L, x_l=1,
        delta_b=D * L, delta_d=L, delta_l=1, bc_b=G * N * L, bc_k=N * L, bc_n=L, bc_l=1,
        out_b=D * L, out_d=L, out_l=1, dout_b=D * L, dout_d=L, dout_l=1,
    )  # fmt: skip


def _aligned(*tensors: Tensor) -> bool:
    """Tensors that start inside others may lie anywhere."""
    return all(t.data_ptr() % 16 == 0 for t in tensors)


def selective_scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, Ds: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    plan = _sequence_plan(
        "FORWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], delta_softplus, out_dtype,
        _aligned(u, delta, Bs, Cs),
    )  # fmt: skip
    out = torch.empty_like(u, dtype=out_dtype)
    last = u.new_empty((plan.B, plan.D, plan.N), dtype=torch.float32)
    shape = (plan.B, _tiles(plan.W), plan.D, plan.N) if save else (0,)
    states = u.new_empty(shape, dtype=torch.float32)
    _run(
        "FORWARD", plan, u,
        **_addresses(x=u, delta=delta, A=A, Bs=Bs, Cs=Cs, Ds=Ds, bias=delta_bias),
        **_addresses(out=out, last_state=last, states=states if save else None),
    )  # fmt: skip
    return out, last, states


def selective_scan_backward(
    dout: Tensor, dlast: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor,
    Cs: Tensor, Ds: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    plan = _sequence_plan(
        "BACKWARD", u.device, u.dtype, u.shape, *Bs.shape[1:3], delta_softplus, u.dtype,
        _aligned(u, delta, Bs, Cs),
    )  # fmt: skip
    if not (plan.sequence and dout.dtype == u.dtype):
        dout = dout.float()
    du, ddelta, dA, dBs, dCs = (torch.empty_like(t) for t in (u, delta, A, Bs, Cs))
    dDs, dbias = A.new_empty(plan.D), A.new_empty(plan.D)
    images = plan.B * plan.splits
    rows = Sums(cleared=False, dA=(dA, images), dDs=(dDs, images), dbias=(dbias, images))
    sums = Sums(cleared=True, dBs=(dBs, 1), dCs=(dCs, 1))
    _run(
        "BACKWARD", plan, u,
        **_addresses(x=u, delta=delta, A=A, Bs=Bs, Cs=Cs, Ds=Ds, bias=delta_bias),
        **_addresses(states=states, dout=dout, dlast=dlast, dx=du, ddelta=ddelta),
        **sums.addresses, **rows.addresses, dout_dtype=DTYPES[dout.dtype],
    )  # fmt: skip
    finish(u.device, sums, rows)
    return (
        du, ddelta, dA, dBs, dCs,
        u.new_empty((0,), dtype=torch.float32) if Ds is None else dDs,
        u.new_empty((0,), dtype=torch.float32) if delta_bias is None else dbias,
    )  # fmt: skip
