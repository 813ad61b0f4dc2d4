"""Argument checks of the public functions, before any work is done.

Plain Python on shapes, dtypes and devices: no device synchronization, and traceable by
torch.compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from swin_umamba_ops.inputs import ScanInputs, SS2DArguments
from swin_umamba_ops.numerics import FLOAT_DTYPES

_DTYPE_NAMES = "float64, float32, float16 or bfloat16"


def _sizes(shape: tuple[int, ...]) -> str:
    # Formatted one by one: torch.compile cannot apply str() to a symbolic size.
    return f"({', '.join([f'{n}' for n in shape])}{',' if len(shape) == 1 else ''})"


def _shape(t: Tensor) -> str:
    return _sizes(tuple(t.shape))


def _is_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a torch.Tensor")


def _is_float(name: str, t: Tensor) -> None:
    if t.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} has dtype {t.dtype}, expected {_DTYPE_NAMES}")


def _has_shape(name: str, t: Tensor, shape: tuple[int, ...], letters: str) -> None:
    if t.shape != shape:
        raise ValueError(f"{name} has shape {_shape(t)}, expected {letters} = {_sizes(shape)}")


def _same_device(name: str, t: Tensor, first: str, device: torch.device) -> None:
    if t.device != device:
        raise ValueError(f"{name} is on {t.device}, expected {device} like {first}")


def check_out_dtype(out_dtype: object) -> None:
    """TypeError unless out_dtype is None or one of the four floating dtypes."""
    if out_dtype is not None and out_dtype not in FLOAT_DTYPES:
        raise TypeError(f"out_dtype is {out_dtype!r}, expected None, {_DTYPE_NAMES}")


def check_ss2d(arguments: SS2DArguments, autocast_dtype: torch.dtype | None) -> None:
    """TypeError or ValueError naming the first argument that does not fit (see functional.ss2d)."""
    x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds = arguments
    _is_tensor("x", x)
    _is_float("x", x)
    if x.dim() != 4:
        raise ValueError(f"x has shape {_shape(x)}, expected four axes (B, D, H, W)")
    _, D, H, W = x.shape
    if D == 0 or H == 0 or W == 0:
        raise ValueError(f"x has shape {_shape(x)}: D, H and W must not be 0")
    device, dtypes = x.device, (torch.float32, x.dtype, autocast_dtype)
    for name, parameter in zip(arguments._fields[1:], arguments[1:], strict=True):
        _is_tensor(name, parameter)
        _same_device(name, parameter, "x", device)
        if parameter.dtype not in dtypes:
            _is_float(name, parameter)
            raise TypeError(
                f"{name} has dtype {parameter.dtype}, expected torch.float32 or x's {x.dtype}"
            )

    if dt_projs_weight.dim() != 3:
        raise ValueError(
            f"dt_projs_weight has shape {_shape(dt_projs_weight)}, expected three axes (4, D, R)"
        )
    R = dt_projs_weight.shape[2]
    if R == 0:
        raise ValueError(f"dt_projs_weight has shape {_shape(dt_projs_weight)}: R must not be 0")
    _has_shape("dt_projs_weight", dt_projs_weight, (4, D, R), "(4, D, R)")
    if A_logs.dim() != 2:
        raise ValueError(f"A_logs has shape {_shape(A_logs)}, expected two axes (4 * D, N)")
    N = A_logs.shape[1]
    if N == 0:
        raise ValueError(f"A_logs has shape {_shape(A_logs)}: N must not be 0")
    _has_shape("A_logs", A_logs, (4 * D, N), "(4 * D, N)")
    _has_shape("x_proj_weight", x_proj_weight, (4, R + 2 * N, D), "(4, R + 2N, D)")
    _has_shape("dt_projs_bias", dt_projs_bias, (4, D), "(4, D)")
    _has_shape("Ds", Ds, (4 * D,), "(4 * D,)")


def _check_map(
    name: str, t: Tensor, batch: int, D: int, N: int, L: int, is_complex: bool
) -> int | None:
    """Check B or C of selective_scan: (B, N, L), (B, G, N, L) with G dividing D, or constant (D,
    N). With complex A the first two contain real and imaginary parts alternating in L. Returns the
    number of groups; None if constant."""
    if t.dim() == 2:
        _has_shape(name, t, (D, N), "(D, N)")
        return None
    if t.is_complex():
        raise TypeError(f"{name} has dtype {t.dtype}, expected a real one: with complex A as 2L")
    steps, letters = (2 * L, "2L") if is_complex else (L, "L")
    if t.dim() == 3:
        _has_shape(name, t, (batch, N, steps), f"(B, N, {letters})")
        return 1
    if t.dim() != 4:
        raise ValueError(
            f"{name} has shape {_shape(t)}, expected (B, N, {letters}), (B, G, N, {letters}) or "
            "(D, N)"
        )
    G = t.shape[1]
    if G == 0 or D % G:
        raise ValueError(f"{name} has shape {_shape(t)}: G = {G} groups do not divide D = {D}")
    _has_shape(name, t, (batch, G, N, steps), f"(B, G, N, {letters})")
    return G


def check_selective_scan(
    inputs: ScanInputs, z: Tensor | None, initial_state: Tensor | None
) -> None:
    """TypeError or ValueError naming the first argument that does not fit, by its public name."""
    u, delta, A, B, C, D, delta_bias, _ = inputs
    _is_tensor("u", u)
    _is_float("u", u)
    if u.dim() != 3:
        raise ValueError(f"u has shape {_shape(u)}, expected three axes (B, D, L)")
    batch, channels, length = u.shape
    if channels == 0 or length == 0:
        raise ValueError(f"u has shape {_shape(u)}: D and L must not be 0")
    rest = {
        "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias,
        "initial_state": initial_state,
    }  # fmt: skip
    optional = ("D", "z", "delta_bias", "initial_state")
    is_complex = isinstance(A, Tensor) and A.is_complex()
    for name, t in rest.items():
        if t is None and name in optional:
            continue
        _is_tensor(name, t)
        assert t is not None
        _same_device(name, t, "u", u.device)
        if t.is_complex():
            if name not in ("A", "B", "C", "initial_state"):
                raise TypeError(f"{name} has dtype {t.dtype}, expected {_DTYPE_NAMES}")
            if not is_complex:
                raise TypeError(f"{name} has dtype {t.dtype}, but A is real: {A.dtype}")
        else:
            _is_float(name, t)
        if t.dtype in (torch.float64, torch.complex128) and u.dtype != torch.float64:
            raise TypeError(f"{name} has dtype {t.dtype}, but u has {u.dtype}: make u float64 too")

    _has_shape("delta", delta, (batch, channels, length), "(B, D, L)")
    if A.dim() != 2:
        raise ValueError(f"A has shape {_shape(A)}, expected two axes (D, N)")
    N = A.shape[1]
    if N == 0:
        raise ValueError(f"A has shape {_shape(A)}: N must not be 0")
    _has_shape("A", A, (channels, N), "(D, N)")
    groups_B = _check_map("B", B, batch, channels, N, length, is_complex)
    groups_C = _check_map("C", C, batch, channels, N, length, is_complex)
    if groups_B is not None and groups_C is not None and groups_B != groups_C:
        raise ValueError(f"C has {groups_C} groups, expected {groups_B} like B")
    if D is not None:
        _has_shape("D", D, (channels,), "(D,)")
    if z is not None:
        _has_shape("z", z, (batch, channels, length), "(B, D, L)")
    if delta_bias is not None:
        _has_shape("delta_bias", delta_bias, (channels,), "(D,)")
    if initial_state is not None:
        _has_shape("initial_state", initial_state, (batch, channels, N), "(B, D, N)")


def check_state_update(tensors: Mapping[str, object], optional: tuple[str, ...]) -> None:
    """TypeError or ValueError naming the first that is not a tensor of real numbers on the first
    one's device; those that are optional may be None."""
    first: str | None = None
    for name, t in tensors.items():
        if t is None and name in optional:
            continue
        _is_tensor(name, t)
        assert isinstance(t, Tensor)
        _is_float(name, t)
        if first is None:
            first, device = name, t.device
        _same_device(name, t, first, device)


def seqlens(cu_seqlens: object, length: int) -> list[int]:
    """The boundaries of consecutive sequences from 0 to L, read by the host. TypeError or
    ValueError if they are not."""
    _is_tensor("cu_seqlens", cu_seqlens)
    assert isinstance(cu_seqlens, Tensor)
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"cu_seqlens has dtype {cu_seqlens.dtype}, expected torch.int32 or int64")
    if cu_seqlens.dim() != 1:
        raise ValueError(f"cu_seqlens has shape {_shape(cu_seqlens)}, expected (sequences + 1,)")
    ends: list[int] = cu_seqlens.tolist()
    increasing = all(a < b for a, b in pairwise(ends))
    if ends[:1] != [0] or ends[-1:] != [length] or not increasing:
        raise ValueError(
            f"cu_seqlens is {ends}, expected increasing numbers from 0 to L = {length}"
        )
    return ends
