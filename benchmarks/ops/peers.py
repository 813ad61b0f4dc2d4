"""Other implementations of the scan, run through their own code, wherever it can be imported from.

Each comes from an installed package, or from a folder named by an environment variable:

SWIN_UMAMBA_PEER_MAMBA    a checkout of state-spaces/mamba, built in place
                          (MAMBA_KEEP_CUDA_BUILD=TRUE; the compiled selective_scan_cuda beside it)
SWIN_UMAMBA_PEER_VMAMBA   a checkout of MzeroMiko/VMamba, its kernels/selective_scan built in place
                          or the compiled selective_scan_cuda_oflex beside it (on CUDA 13 replace
                          cub::LaneId() and cub::CTA_SYNC() in reverse_scan.cuh)
SWIN_UMAMBA_PEER_RELEASE  the folder `swin_umamba` of a checkout of JiarunLiu/Swin-UMamba; needs
                          MONAI, timm, einops, and mamba-ssm as above
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import environment
from benchmarks.measuring.cases import DIRECTIONS, PARAMETERS
from benchmarks.ops.competitors import (
    Competitor,
    Prepare,
    Step,
    autocast,
    leaf,
    selective_scan_prepare,
)

_VARIABLES = {
    "mamba-ssm": "SWIN_UMAMBA_PEER_MAMBA",
    "vmamba": "SWIN_UMAMBA_PEER_VMAMBA",
    "release": "SWIN_UMAMBA_PEER_RELEASE",
}
HOW_TO_GET = {
    "mamba-ssm": "MAMBA_KEEP_CUDA_BUILD=TRUE pip install mamba-ssm, or build a checkout of "
    "state-spaces/mamba and name it in SWIN_UMAMBA_PEER_MAMBA",
    "vmamba": "build kernels/selective_scan of a checkout of MzeroMiko/VMamba and name the "
    "checkout in SWIN_UMAMBA_PEER_VMAMBA",
    "release": "name the folder swin_umamba of a checkout of JiarunLiu/Swin-UMamba in "
    "SWIN_UMAMBA_PEER_RELEASE; needs MONAI, timm, einops and mamba-ssm",
}


@contextmanager
def _importing_from(*folders: Path) -> Iterator[None]:
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(str(folder))


def _named_folder(variable: str) -> Path | None:
    """The folder named by an environment variable. ImportError if there is none."""
    value = os.environ.get(variable)
    if not value:
        return None
    folder = Path(value).resolve()
    if not folder.is_dir():
        raise ImportError(f"{variable} is {value!r}, which is no folder")
    return folder


def load_mamba() -> Callable[..., Tensor]:
    """mamba-ssm's selective_scan_fn. ImportError says what is missing."""
    folder = _named_folder(_VARIABLES["mamba-ssm"])
    if folder is not None and "mamba_ssm" not in sys.modules:
        # The package's own __init__ imports transformers; a bare module with its path does not.
        package = types.ModuleType("mamba_ssm")
        package.__path__ = [str(folder / "mamba_ssm")]
        sys.modules["mamba_ssm"] = package
    with _importing_from(*([folder] if folder else [])):
        importlib.import_module("selective_scan_cuda")
        interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    function: Callable[..., Tensor] = interface.selective_scan_fn
    return function


def _load_vmamba() -> tuple[Any, Any]:
    """VMamba's modules csm_triton and csms6s."""
    folder = _named_folder(_VARIABLES["vmamba"])
    folders = []
    if folder is not None:
        folders = [folder, folder / "kernels/selective_scan", folder / "classification/models"]
    with _importing_from(*folders):
        importlib.import_module("selective_scan_cuda_oflex")
        return importlib.import_module("csm_triton"), importlib.import_module("csms6s")


def load_release(name: str = "SwinUMamba") -> Any:
    """The original implementation's module nnunetv2.nets.SwinUMamba, or SwinUMambaD."""
    load_mamba()
    folder = _named_folder(_VARIABLES["release"])
    with _importing_from(*([folder] if folder else [])):
        return importlib.import_module(f"nnunetv2.nets.{name}")


def _nchw(
    activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x and dy in channels-first memory, which both of them need, and separate parameters."""
    own = {name: leaf(parameters[name]) for name in PARAMETERS}
    return leaf(activations["x"]), activations["dy"].contiguous(), own


def _release_ss2d(core: Callable[..., tuple[Tensor, ...]], scan: Callable[..., Tensor]) -> Prepare:
    """The original SS2D.forward_core on mamba-ssm, and the sum its forward takes of it."""

    def prepare(activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Step:
        x, dy, own = _nchw(activations, parameters)
        layer = types.SimpleNamespace(
            **own,
            dt_rank=own["dt_projs_weight"].shape[2],
            d_state=own["A_logs"].shape[1],
            selective_scan=scan,
        )

        def run() -> Tensor:
            with autocast(x):
                y1, y2, y3, y4 = core(layer, x)
                return (y1 + y2 + y3 + y4).view(x.shape)

        return Step(run, {"x": x, **own}, dy)

    return prepare


def _vmamba_ss2d(csm: Any, csms6s: Any) -> Prepare:
    """VMamba's fastest path, forward_type v05: Triton cross-scan, grouped conv1d, oflex kernel.

    Written out here because it is in a layer whose file imports fvcore and timm; all parts that do
    the work are VMamba's or torch's.
    """

    def prepare(activations: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> Step:
        x, dy, own = _nchw(activations, parameters)
        x_proj_weight, dt_weight, dt_bias, A_logs, Ds = own.values()
        batch, D, height, width = x.shape
        K, N, R, L = DIRECTIONS, A_logs.shape[1], dt_weight.shape[2], height * width

        def run() -> Tensor:
            with autocast(x):
                xs = csm.cross_scan_fn(x).view(batch, -1, L)
                projected = F.conv1d(xs, x_proj_weight.view(-1, D, 1), groups=K)
                dts, Bs, Cs = torch.split(projected.view(batch, K, -1, L), [R, N, N], dim=2)
                dts = F.conv1d(
                    dts.contiguous().view(batch, -1, L), dt_weight.view(K * D, -1, 1), groups=K
                )
                ys = csms6s.selective_scan_fn(
                    xs,
                    dts.contiguous(),
                    -A_logs.exp(),
                    Bs.contiguous(),
                    Cs.contiguous(),
                    Ds,
                    dt_bias.view(-1),
                    True,
                    True,
                    backend="oflex",
                )
                y: Tensor = csm.cross_merge_fn(ys.view(batch, K, -1, height, width))
                return y.view(x.shape)

        return Step(run, {"x": x, **own}, dy)

    return prepare


def _mamba_preparations() -> dict[str, Prepare]:
    return {"selective_scan": selective_scan_prepare(load_mamba())}


def _vmamba_preparations() -> dict[str, Prepare]:
    csm, csms6s = _load_vmamba()

    def scan(*tensors: Tensor, delta_bias: Tensor, delta_softplus: bool) -> Any:
        return csms6s.selective_scan_fn(
            *tensors, delta_bias, delta_softplus, False, backend="oflex"
        )

    return {"ss2d": _vmamba_ss2d(csm, csms6s), "selective_scan": selective_scan_prepare(scan)}


def _release_preparations() -> dict[str, Prepare]:
    scan = load_mamba()
    return {"ss2d": _release_ss2d(load_release().SS2D.forward_core, scan)}


def why_no_release(device: torch.device) -> str | None:
    """None if the original models can run on this device, otherwise why not and how to get them."""
    try:
        if device.type != "cuda":
            raise ImportError("its kernels need a CUDA device")
        for name in ("SwinUMamba", "SwinUMambaD"):
            load_release(name)
    except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
        return _error_line("release", error)
    return None


def _error_line(name: str, error: Exception) -> str:
    return f"{type(error).__name__}: {error}; to get it: {HOW_TO_GET[name]}"


def source(name: str) -> str:
    """The commit of an implementation's folder, or "installed"."""
    folder = _named_folder(_VARIABLES[name])
    return "installed" if folder is None else environment.commit(folder)


_PEERS: dict[str, Callable[[], dict[str, Prepare]]] = {
    "mamba-ssm": _mamba_preparations,
    "vmamba": _vmamba_preparations,
    "release": _release_preparations,
}


def peers(device: torch.device) -> list[Competitor]:
    """All other implementations; those unavailable on this device with the reason."""
    found = []
    for name, load in _PEERS.items():
        try:
            if device.type != "cuda":
                raise ImportError("its kernels need a CUDA device")
            found.append(Competitor(name, False, load(), source=source(name)))
        except Exception as error:  # noqa: BLE001 - foreign code may fail in any way; it is reported
            found.append(Competitor(name, False, {}, _error_line(name, error)))
    return found
