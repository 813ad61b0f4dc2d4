"""The rate of exp2 on a GPU: a kernel that does nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

_BLOCK = 1024
_STEPS = 1024


@triton.jit
def _exp2_kernel(out, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = offsets.to(tl.float32) * 1e-9
    for _ in range(STEPS):
        # Negated, so that the iteration stays in (0, 1]; the hardware negates for nothing.
        value = tl.inline_asm_elementwise(
            "{ .reg .f32 t; neg.f32 t, $1; ex2.approx.ftz.f32 $0, t; }",
            "=f,f",
            [value],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    tl.store(out + offsets, value)


def exp2_work(device: torch.device) -> tuple[Callable[[], None], int]:
    """A call that fills the device with exponentials, and their number."""
    programs = 64 * torch.cuda.get_device_properties(device).multi_processor_count
    out = torch.empty(programs * _BLOCK, device=device)

    def work() -> None:
        _exp2_kernel[(programs,)](out, STEPS=_STEPS, BLOCK=_BLOCK, num_warps=4)

    return work, programs * _BLOCK * _STEPS
