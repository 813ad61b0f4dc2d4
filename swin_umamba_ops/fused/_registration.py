"""What the fused ops share: definition in torch.library, devices, and the cut into programs."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_umamba_ops import numerics
from swin_umamba_ops.backends._device import current
from swin_umamba_ops.eager import past_dispatcher

LIB = torch.library.Library("swin_umamba", "FRAGMENT")
# Compiled graphs hand over the strides they were traced with: contiguous ones.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
# Found out here: the compiler does not see through a search for modules.
_SERVED = ("cuda",) if importlib.util.find_spec("triton") is not None else ()
_PROCESSORS_OF_A_CPU = 2  # Triton's interpreter: enough to cut the work


def _on_its_device(impl: Callable[..., Any]) -> Callable[..., Any]:
    """impl with the GPU of its first argument current: Triton launches on the current one."""

    @functools.wraps(impl)
    def run(x: Tensor, *others: Any) -> Any:
        with current(x.device):
            return impl(x, *others)

    return run


def define(
    schema: str, impl: Callable[..., Any], fake: Callable[..., Any], function: Any = None
) -> Callable[..., Any]:
    """An op of one schema with its kernel for all devices, its fake and, if any, its
    autograd.Function; how to call it."""
    name = schema.split("(")[0]
    implementation = _on_its_device(impl)
    LIB.define(schema, tags=_TAGS)
    LIB.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"swin_umamba::{name}", fake, lib=LIB)
    if function is not None:
        LIB.impl(name, function.apply, "Autograd")
    op = getattr(torch.ops.swin_umamba, name).default
    return past_dispatcher(op, implementation, function)


def kernels_serve(x: Tensor) -> bool:
    """Whether the Triton kernels take x; elsewhere the same is written in PyTorch's operators."""
    return x.device.type in _SERVED and x.dtype != torch.float64


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype of autocast where x is, or None outside of autocast and for float64."""
    return None if x.dtype == torch.float64 else numerics.autocast_dtype(x)


@functools.cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type != "cuda":
        return _PROCESSORS_OF_A_CPU
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
