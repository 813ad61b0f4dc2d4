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

chunk_length = 32  # kTile in csrc/cuda/mapping.cuh
_DIRECTIONS = 4
_DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # DType in csrc/cuda/params.h
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
    if dtype not in _DTYPES:
        return f"it serves float32, float16 and bfloat16, not {dtype}"
    if torch.cuda.get_device_capability(device) < _MIN_CAPABILITY:
        return "it needs compute capability 7.5 or newer"
    most = _extension.module().cuda.max_states()
    return None if most >= N else f"it serves up to {most} states, not {N}"


# ---- launching


def _launch(fields: Fields, which: str, device: torch.device) -> None:
    """One pass over everything, or, where determinism asks for it, one launch for each set of
    sums that must not meet in one address at the same time."""
    cuda = _extension.module().cuda
    stream = torch.cuda.current_stream(device).cuda_stream
    params = cuda.ScanParams(**fields)
    which = getattr(cuda.Pass, which)
    if not torch.are_deterministic_algorithms_enabled():
        cuda.launch(params, which, stream)
        return
    params.directions = params.blocks = 1
    for params.first_direction in range(fields["K"]):
        for params.first_block in range(fields["blocks"]):
            cuda.launch(params, which, stream)


@functools.lru_cache(maxsize=4096)
def _plan(
    which: str, device: torch.device, image: bool, sizes: tuple[tuple[str, int], ...]
) -> Fields:
    """How a pass is cut: blocks of channels, and splits of the sequence by what fills `device`."""
    cuda = _extension.module().cuda
    params = cuda.ScanParams(proj=int(image), **dict(sizes))
    tiles = -(-params.H * params.W // chunk_length)
    params.directions = params.K
    splits = cuda.choose_splits(params, getattr(cuda.Pass, which))
    per_split = -(-tiles // splits)
    return {
        "blocks": cuda.channel_blocks(params),
        "directions": params.K,
        "splits": splits,
        "tiles_per_split": per_split,
    }


def _run(which: str, sizes: Fields, fields: Fields, like: Tensor) -> None:
    """Run a pass; `fields` already holds its plan. Cut into splits it takes a pass before."""
    fields = {**sizes, **fields}
    if fields["splits"] > 1:
        rows = (fields["B"], fields["K"], fields["splits"], fields["D"])
        state = like.new_empty((*rows, fields["N"]), dtype=torch.float32)
        dt = like.new_empty(rows, dtype=torch.float32)
        fields |= {"split_state": state.data_ptr(), "split_dt": dt.data_ptr()}
        _launch(fields, which + "_SPLITS", like.device)
    _launch(fields, which, like.device)


def _plan_for(which: str, sizes: Fields, like: Tensor, image: bool) -> Fields:
    with torch.cuda.device(like.device):
        return _plan(which, like.device, image, tuple(sizes.items()))


def _parameter_gradients(
    sizes: Fields, plan: Fields, like: Tensor, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Rows of partial sums, one for each image and split: summed afterwards in a fixed order."""
    rows, channels = sizes["B"] * plan["splits"], sizes["K"] * sizes["D"]
    tails = {"dA": (sizes["N"],), "ddt_weight": (sizes.get("R", 0),), "dDs": (), "dbias": ()}
    return {
        name: like.new_empty((rows, channels, *tails[name]), dtype=torch.float32) for name in names
    }


def _addresses(**tensors: Tensor | None) -> Fields:
    return {name: t.data_ptr() for name, t in tensors.items() if t is not None}


# ---- ss2d


def _image_sizes(x: Tensor, A_logs: Tensor, dt_projs_weight: Tensor) -> Fields:
    B, H, W, D = x.shape
    return {
        "B": B, "K": _DIRECTIONS, "D": D, "H": H, "W": W, "N": A_logs.shape[1],
        "R": dt_projs_weight.shape[2], "dtype": _DTYPES[x.dtype],
    }  # fmt: skip


@functools.cache
def _image_kernels_serve(device: torch.device, dtype: int, D: int, N: int, R: int) -> bool:
    major, minor = torch.cuda.get_device_capability(device)
    return _extension.module().cuda.image_kernels_serve(dtype, D, N, R, 10 * major + minor)


def _low_rank(proj: Tensor, R: int) -> Tensor:
    """The R values for dt in proj (B, H, W, 4, R + 2N), as (4, B * H * W, R)."""
    return proj.flatten(0, 2)[..., :R].transpose(0, 1)


def _image_inputs(
    sizes: Fields, image: bool, x: Tensor, proj: Tensor, dt_projs_weight: Tensor,
    dt_projs_bias: Tensor, A_logs: Tensor, Ds: Tensor,
) -> tuple[Fields, Tensor | None]:  # fmt: skip
    """The fields that name the inputs, and delta, which must outlive the launch."""
    D, N, R = sizes["D"], sizes["N"], sizes["R"]
    L = sizes["H"] * sizes["W"]
    fields = {
        "x_b": L * D, "x_l": D, "x_d": 1, "a_is_log": 1, "softplus": 1, "accumulate": 1,
        **_addresses(x=x, A=A_logs, Ds=Ds, bias=dt_projs_bias),
    }  # fmt: skip
    if image:
        return fields | _addresses(proj=proj, dt_weight=dt_projs_weight), None
    delta = _low_rank(proj, R) @ dt_projs_weight.transpose(1, 2)  # (4, B * L, D)
    width, item = R + 2 * N, proj.element_size()
    fields |= {
        "delta": delta.data_ptr(), "delta_k": delta.stride(0), "delta_b": L * D, "delta_l": D,
        "delta_d": 1, "Bs": proj.data_ptr() + R * item, "Cs": proj.data_ptr() + (R + N) * item,
        "bc_b": L * _DIRECTIONS * width, "bc_l": _DIRECTIONS * width, "bc_k": width, "bc_n": 1,
    }  # fmt: skip
    return fields, delta


def ss2d_forward(
    x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor,
    Ds: Tensor, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    B, H, W, D = x.shape
    sizes = _image_sizes(x, A_logs, dt_projs_weight)
    image = _image_kernels_serve(x.device, sizes["dtype"], D, sizes["N"], sizes["R"])
    plan = _plan_for("FORWARD", sizes, x, image)
    with torch.cuda.device(x.device):
        inputs, delta = _image_inputs(
            sizes, image, x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds
        )
        y = torch.zeros_like(x, dtype=torch.float32)
        shape = (B, _DIRECTIONS, -(-H * W // chunk_length), D, sizes["N"]) if save else (0,)
        states = x.new_empty(shape, dtype=torch.float32)
        outputs = {"out": y.data_ptr(), "out_b": H * W * D, "out_l": D, "out_d": 1}
        if save:
            outputs["states"] = states.data_ptr()
        _run("FORWARD", sizes, inputs | outputs | plan, x)
        del delta  # not before the launch is queued: the allocator may hand its memory on
    return y.to(out_dtype), states


def ss2d_backward(
    dy: Tensor, x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor,
    A_logs: Tensor, Ds: Tensor, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    H, W, D = x.shape[1:]
    sizes = _image_sizes(x, A_logs, dt_projs_weight)
    N, R = sizes["N"], sizes["R"]
    image = _image_kernels_serve(x.device, sizes["dtype"], D, N, R)
    plan = _plan_for("BACKWARD", sizes, x, image)
    with torch.cuda.device(x.device):
        inputs, delta = _image_inputs(
            sizes, image, x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds
        )
        dy = dy.float()
        dx = torch.zeros_like(x, dtype=torch.float32)
        dproj = torch.zeros_like(proj, dtype=torch.float32)
        names = ("dA", "dDs", "dbias", "ddt_weight") if image else ("dA", "dDs", "dbias")
        partial = _parameter_gradients(sizes, plan, x, names)
        outputs = {"dout_b": H * W * D, "dout_l": D, "dout_d": 1}
        outputs |= _addresses(states=states, dout=dy, dx=dx, **partial)
        ddelta = None
        if image:
            outputs["dproj"] = dproj.data_ptr()
        else:
            ddelta = torch.empty_like(delta)
            outputs |= _addresses(ddelta=ddelta)
            outputs |= {"dBs": dproj.data_ptr() + R * 4, "dCs": dproj.data_ptr() + (R + N) * 4}
        _run("BACKWARD", sizes, inputs | outputs | plan, x)
        sums = {name: t.sum(0) for name, t in partial.items()}
        del delta, partial
        dproj = dproj.to(proj.dtype)
        if ddelta is not None:
            _low_rank(dproj, R).copy_(ddelta @ dt_projs_weight)
            sums["ddt_weight"] = ddelta.transpose(1, 2) @ _low_rank(proj, R)
        dweight = sums["ddt_weight"].view_as(dt_projs_weight).to(dt_projs_weight.dtype)
        dbias = sums["dbias"].view_as(dt_projs_bias)
    return dx.to(x.dtype), dproj, dweight, dbias, sums["dA"], sums["dDs"]


# ---- selective_scan


def _sequence_fields(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, Ds: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool,
) -> tuple[Fields, Fields]:  # fmt: skip
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    sizes = {"B": B, "K": 1, "D": D, "H": 1, "W": L, "N": N, "G": G, "dtype": _DTYPES[u.dtype]}
    fields = {
        "x_b": D * L, "x_d": L, "x_l": 1, "delta_b": D * L, "delta_d": L, "delta_l": 1,
        "bc_b": G * N * L, "bc_k": N * L, "bc_n": L, "bc_l": 1, "softplus": int(delta_softplus),
        **_addresses(x=u, delta=delta, A=A, Bs=Bs, Cs=Cs, Ds=Ds, bias=delta_bias),
    }  # fmt: skip
    return sizes, fields


def selective_scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, Ds: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    B, D, L = u.shape
    sizes, fields = _sequence_fields(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus)
    plan = _plan_for("FORWARD", sizes, u, image=False)
    with torch.cuda.device(u.device):
        out = torch.empty_like(u, dtype=out_dtype)
        last = u.new_empty((B, D, sizes["N"]), dtype=torch.float32)
        shape = (B, -(-L // chunk_length), D, sizes["N"]) if save else (0,)
        states = u.new_empty(shape, dtype=torch.float32)
        outputs = {"out_b": D * L, "out_d": L, "out_l": 1, "out_dtype": _DTYPES[out_dtype]}
        outputs |= _addresses(out=out, last_state=last, states=states if save else None)
        _run("FORWARD", sizes, fields | outputs | plan, u)
    return out, last, states


def selective_scan_backward(
    dout: Tensor, dlast: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor,
    Cs: Tensor, Ds: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    D, L = u.shape[1:]
    sizes, fields = _sequence_fields(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus)
    plan = _plan_for("BACKWARD", sizes, u, image=False)
    with torch.cuda.device(u.device):
        dout = dout.float()
        du, ddelta = torch.empty_like(u), torch.empty_like(delta)
        dBs = torch.zeros_like(Bs, dtype=torch.float32)
        dCs = torch.zeros_like(Cs, dtype=torch.float32)
        partial = _parameter_gradients(sizes, plan, u, ("dA", "dDs", "dbias"))
        outputs = {"dout_b": D * L, "dout_d": L, "dout_l": 1}
        outputs |= _addresses(
            states=states, dout=dout, dlast=dlast, dx=du, ddelta=ddelta, dBs=dBs, dCs=dCs, **partial
        )
        _run("BACKWARD", sizes, fields | outputs | plan, u)
        dA, dDs, dbias = (partial[name].sum(0) for name in ("dA", "dDs", "dbias"))
        absent = u.new_empty((0,), dtype=torch.float32)
    return (
        du, ddelta, dA, dBs.to(Bs.dtype), dCs.to(Cs.dtype),
        absent if Ds is None else dDs,
        absent.clone() if delta_bias is None else dbias,
    )  # fmt: skip
