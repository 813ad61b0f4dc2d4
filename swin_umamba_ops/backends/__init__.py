"""The registry of backends: which exist, which work here, and which one `"auto"` takes.

A backend is a module in this folder with the functions of `Backend`, and one row below. Modules
are imported when first asked for, so that a missing extension or library costs nothing and is
told as the reason why that backend is unusable.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

AUTO = "auto"
EXPORT = "export"
REFERENCE = "reference"
FORMULAS = (EXPORT, REFERENCE)
"""Backends that are plain torch operations, served outside of the ops of library.py."""


class Backend(Protocol):
    """What a backend module provides; shapes and dtypes as in library.py.

    Batches are never empty. No output shares memory with an input or another output. Under
    autocast these functions switch it off around torch operations that it would cast.
    """

    chunk_length: int  # steps between two saved states

    def why_unusable(self) -> str | None:
        """None if it works on this machine, else the reason. Cheap, never raises."""

    def why_unsupported(self, device: torch.device, dtype: torch.dtype, N: int) -> str | None:
        """None if it serves such inputs with N states, else the reason."""

    def ss2d_forward(
        self,
        x: Tensor,
        proj: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        out_dtype: torch.dtype,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        """y and states."""

    def ss2d_backward(
        self,
        dy: Tensor,
        x: Tensor,
        proj: Tensor,
        dt_projs_weight: Tensor,
        dt_projs_bias: Tensor,
        A_logs: Tensor,
        Ds: Tensor,
        states: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of the six inputs after dy, each like its input."""

    def selective_scan_forward(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        Bs: Tensor,
        Cs: Tensor,
        Ds: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        out_dtype: torch.dtype,
        save: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """out, the last state, and states."""

    def selective_scan_backward(
        self,
        dout: Tensor,
        dlast: Tensor | None,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        Bs: Tensor,
        Cs: Tensor,
        Ds: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
        states: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of u, delta, A, Bs, Cs, Ds, delta_bias; (0,), a tensor of its own, for an
        absent input."""


@dataclass(frozen=True)
class Row:
    """One backend: its name, and the device types for which `"auto"` considers it (None: all)."""

    name: str
    auto_devices: frozenset[str] | None

    @property
    def module(self) -> str:
        return f"{__name__}.{self.name}"


# Fastest first: the order in which "auto" tries them.
ROWS = {
    row.name: row
    for row in (
        Row("cuda", frozenset({"cuda"})),
        Row("triton", frozenset({"cuda"})),
        Row("cpu", frozenset({"cpu"})),
        Row("pytorch", None),
    )
}
NAMES = (*ROWS, *FORMULAS)


@functools.cache
def load(name: str) -> Backend:
    """Import a backend's module. ImportError if it is missing; KeyError for an unknown name."""
    return cast(Backend, importlib.import_module(ROWS[name].module))


@functools.cache
def why_unusable(name: str) -> str | None:
    """None if the backend works on this machine, else the reason."""
    if name in FORMULAS:
        return None
    if importlib.util.find_spec(ROWS[name].module) is None:
        return f"this installation of swin_umamba_ops has no {name} backend"
    try:
        backend = load(name)
    except ImportError as error:
        return f"cannot import it: {error}"
    return backend.why_unusable()


def available_backends() -> dict[str, str | None]:
    """Every backend by name, fastest first, with None if usable here, else the reason why not."""
    return {name: why_unusable(name) for name in NAMES}


def _why_not(name: str, device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    """Why a backend cannot serve such inputs on this machine, or None if it can."""
    reason = why_unusable(name)
    if reason is None and name not in FORMULAS:
        reason = load(name).why_unsupported(device, dtype, N)
    return reason


@functools.cache
def resolve(backend: str, device: torch.device, dtype: torch.dtype, N: int) -> str:
    """The name of the backend that serves inputs of this device and dtype with N states.

    A named backend is returned or refused, never replaced: ValueError for an unknown name,
    RuntimeError with the reason for one that cannot serve. "auto" takes the fastest that can,
    and warns, once for each kind of input, of faster ones that were passed over.
    """
    if backend != AUTO:
        if backend not in NAMES:
            known = ", ".join(repr(name) for name in (AUTO, *NAMES))
            raise ValueError(f"backend is {backend!r}, expected one of {known}")
        reason = _why_not(backend, device, dtype, N)
        if reason is not None:
            raise RuntimeError(f"backend {backend!r} cannot serve {device}, {dtype}: {reason}")
        return backend

    passed_over: list[str] = []
    for row in ROWS.values():
        if row.auto_devices is not None and device.type not in row.auto_devices:
            continue
        reason = _why_not(row.name, device, dtype, N)
        if reason is None:
            _warn_of_slower(row.name, device, tuple(passed_over))
            return row.name
        passed_over.append(f"{row.name!r} ({reason})")
    raise RuntimeError(f"no backend serves {device}, {dtype}: {'; '.join(passed_over)}")


@functools.cache
def _warn_of_slower(chosen: str, device: torch.device, passed_over: tuple[str, ...]) -> None:
    if passed_over:
        warnings.warn(
            f"swin_umamba_ops uses the slower backend {chosen!r} on {device}; "
            f"not {', '.join(passed_over)}",
            RuntimeWarning,
            stacklevel=2,
        )
