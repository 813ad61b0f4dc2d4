"""The registry of backends: which exist, what each supports, and which one `"auto"` selects.

A backend is a row of `BACKENDS`: for each op that it supports, either a module of this package with
kernels, called by the ops of swin_umamba_ops.ops (see protocols.py), or a formula, a function of
plain torch operations that autograd differentiates. Modules with kernels are imported at first use,
so a missing extension or a broken library costs nothing and becomes the reason why that backend is
unusable.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from swin_umamba_ops.backends import export, plain, reference

AUTO = "auto"
EXPORT = "export"
REFERENCE = "reference"
SCANS = ("ss2d", "selective_scan")
_TRITON_FUSED = {
    "layer_norm": "triton_layer_norm",
    "depthwise_conv_silu": "triton_depthwise",
    "instance_norm_act": "triton_instance_norm",
    "conv3x3": "triton_convolution",
    "norm_act_conv3x3": "triton_convolution",
    "mlp_gelu": "triton_mlp",
    "segmentation_sums": "triton_segmentation",
}
FUSED = tuple(_TRITON_FUSED)
_PLAIN_FUSED: Mapping[str, Callable[..., Any]] = {op: getattr(plain, op) for op in FUSED}


@dataclass(frozen=True, eq=False)
class Backend:
    """One backend: its name, the device types for which `"auto"` considers it (None: all), and for
    each supported op the module with its kernels, or its formula."""

    name: str
    auto_devices: frozenset[str] | None
    kernels: Mapping[str, str] = field(default_factory=dict)
    formulas: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def has(self, op: str) -> bool:
        """Whether it has the op at all."""
        return op in self.kernels or op in self.formulas

    def considered(self, op: str, device: torch.device) -> bool:
        """Whether `"auto"` considers it."""
        return self.has(op) and (self.auto_devices is None or device.type in self.auto_devices)


_NEVER_AUTO: frozenset[str] = frozenset()
# Fastest first: the order in which "auto" tries them.
BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("cuda", frozenset({"cuda"}), dict.fromkeys(SCANS, "cuda")),
        Backend(
            "triton",
            frozenset({"cuda"}),
            {"ss2d": "triton", "selective_scan": "triton_sequence", **_TRITON_FUSED},
        ),
        Backend("cpu", frozenset({"cpu"}), dict.fromkeys(SCANS, "cpu")),
        Backend(
            "pytorch",
            None,
            dict.fromkeys(SCANS, "pytorch"),
            {
                "complex_scan": plain.complex_scan,
                "selective_state_update": plain.selective_state_update,
                **_PLAIN_FUSED,
            },
        ),
        Backend(
            EXPORT,
            _NEVER_AUTO,
            formulas={
                "ss2d": export.ss2d,
                "selective_scan": export.selective_scan,
                **_PLAIN_FUSED,
            },
        ),
        Backend(
            REFERENCE,
            _NEVER_AUTO,
            formulas={
                "ss2d": reference.ss2d,
                "selective_scan": reference.selective_scan,
                "complex_scan": reference.selective_scan,
                "selective_state_update": plain.selective_state_update,
                **_PLAIN_FUSED,
            },
        ),
    )
}
NAMES = tuple(BACKENDS)


@functools.cache
def load(module: str) -> Any:
    """Import a module of this package, such as a backend's. ImportError if it is missing."""
    return importlib.import_module(f"{__name__}.{module}")


@functools.cache
def why_not_loaded(module: str) -> str | None:
    """None if a module of this package imports and reports that it works here, else the reason."""
    if importlib.util.find_spec(f"{__name__}.{module}") is None:
        return f"this installation of swin_umamba_ops has no {module} backend"
    try:
        found = load(module)
    # Third-party code runs here, such as an incompatible Triton: any failure becomes the reason.
    except Exception as error:  # noqa: BLE001
        return f"cannot import it: {type(error).__name__}: {error}"
    reason: str | None = found.why_unusable()
    return reason


def why_unusable(name: str) -> str | None:
    """None if the backend works on this machine, else the reason."""
    return why_not_loaded(name) if BACKENDS[name].kernels else None


def available_backends() -> dict[str, str | None]:
    """Every backend by name, fastest first, with None if usable here, else the reason why not."""
    return {name: why_unusable(name) for name in NAMES}


def why_not(
    backend: Backend, op: str, device: torch.device, dtype: torch.dtype, size: int
) -> str | None:
    """Why a backend does not support an op on such inputs on this machine, or None if it does.

    size: states of a scan, width of a depthwise convolution, classes; 0 for other ops.
    """
    if op in backend.formulas:
        return None
    if op not in backend.kernels:
        return f"it has no {op}"
    reason = why_unusable(backend.name)
    if reason is None:
        reason = why_not_loaded(backend.kernels[op])
    if reason is None:
        reason = load(backend.kernels[op]).why_unsupported(device, dtype, size)
    return reason


@functools.cache
def resolve(op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int) -> Backend:
    """The backend for an op on inputs of this device and dtype; size as in `why_not`.

    A named backend is returned or refused, never replaced: ValueError for an unknown name,
    RuntimeError with the reason if it does not support the inputs. "auto" selects the fastest that
    does, and warns, once per kind of input, about faster ones that were skipped.
    """
    if backend != AUTO:
        found = BACKENDS.get(backend)
        if found is None:
            known = ", ".join(repr(name) for name in (AUTO, *NAMES))
            raise ValueError(f"backend is {backend!r}, expected one of {known}")
        reason = why_not(found, op, device, dtype, size)
        if reason is not None:
            raise RuntimeError(f"backend {backend!r} does not support {device}, {dtype}: {reason}")
        return found

    skipped: list[str] = []
    for row in BACKENDS.values():
        if not row.considered(op, device):
            continue
        reason = why_not(row, op, device, dtype, size)
        if reason is None:
            _warn_of_slower(row.name, device, tuple(skipped))
            return row
        skipped.append(f"{row.name!r} ({reason})")
    raise RuntimeError(f"no backend supports {device}, {dtype}: {'; '.join(skipped)}")


@functools.cache
def kernels(op: str, backend: str, device: torch.device, dtype: torch.dtype, size: int) -> Any:
    """The module with the kernels of a named backend for an op; refused as in `resolve`."""
    if backend in BACKENDS and op in BACKENDS[backend].formulas:
        raise RuntimeError(f"backend {backend!r} has no kernels of {op}: it is plain PyTorch")
    return load(resolve(op, backend, device, dtype, size).kernels[op])


@functools.cache
def _warn_of_slower(chosen: str, device: torch.device, skipped: tuple[str, ...]) -> None:
    if skipped:
        warnings.warn(
            f"swin_umamba_ops uses the slower backend {chosen!r} on {device}; "
            f"not {', '.join(skipped)}",
            RuntimeWarning,
            stacklevel=2,
        )
