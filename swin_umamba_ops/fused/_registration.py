"""What the fused ops share: definition in torch.library, devices, and the cut into programs."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops.backends._device import current

LIB = torch.library.Library("swin_umamba", "FRAGMENT")
# Compiled graphs hand over the strides they were traced with: contiguous ones.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
_PROCESSORS_OF_A_CPU = 2  # Triton's interpreter: enough to cut the work


def _on_its_device(impl: Callable[..., Any]) -> Callable[..., Any]:
    """impl with the GPU of its first argument current: Triton launches on the current one."""

    @functools.wraps(impl)
    def run(x: Tensor, *others: Any) -> Any:
        with current(x.device):
            return impl(x, *others)

    return run


def define(
    schema: str, impl: Callable[..., Any], fake: Callable[..., Any], autograd: Any = None
) -> None:
    """An op of one schema with its kernel for all devices, its fake and, if any, its gradient."""
    name = schema.split("(")[0]
    LIB.define(schema, tags=_TAGS)
    LIB.impl(name, _on_its_device(impl), "CompositeExplicitAutograd")
    torch.library.register_fake(f"swin_umamba::{name}", fake, lib=LIB)
    if autograd is not None:
        LIB.impl(name, autograd, "Autograd")


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def kernels_serve(x: Tensor) -> bool:
    """Whether the Triton kernels take x; elsewhere the same is written in PyTorch's operators."""
    return x.device.type == "cuda" and x.dtype != torch.float64 and _has_triton()


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype of autocast where x is, or None outside of autocast and for float64."""
    kind = x.device.type
    if x.dtype == torch.float64 or not torch.amp.is_autocast_available(kind):
        return None
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type != "cuda":
        return _PROCESSORS_OF_A_CPU
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
