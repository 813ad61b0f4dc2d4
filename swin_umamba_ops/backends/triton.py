"""The Triton kernels of triton_kernels: allocation, strides and the partition into programs.

In the forward pass for 16-bit inputs, a program computes dt itself, chunk by chunk, from the
low-rank part of the projection, and reads Bs and Cs directly from the projection. Otherwise a
separate kernel computes dt and converts Bs and Cs to float32. The scans add float32 sums in place:
no direction has its own copy. triton_sequence.py runs one-directional sequences through the same
kernels.
"""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from swin_umamba_ops.backends._device import current
from swin_umamba_ops.backends._launch_cache import Launch, launch
from swin_umamba_ops.backends._triton_projection import project, project_backward, skip
from swin_umamba_ops.backends._triton_tiles import (
    Tile,
    alignment,
    common,
    scan_tile,
    split_chunks,
    split_tile,
    wide_tile,
)
from swin_umamba_ops.backends.protocols import Gradients
from swin_umamba_ops.backends.triton_kernels import backward, forward, parameters
from swin_umamba_ops.backends.triton_kernels.project import staged_row
from swin_umamba_ops.inputs import ALL_SS2D, SS2DInputs, SS2DWanted
from swin_umamba_ops.numerics import as_dtype
from swin_umamba_ops.scan_order import DIRECTIONS

chunk_length = 32
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DEVICES = ("cuda", "xpu")
_MAX_STATES = 256
# Leaves room for this many programs of one warp on a multiprocessor with 65536 registers.
_MAX_REGISTERS = 168
_PROGRAMS_PER_PROCESSOR = 12
_INT32_VALUES = 2**31  # values per image from which offsets need 64 bits


@functools.cache
def _interpreted() -> bool:
    return bool(triton.knobs.runtime.interpret)


@functools.cache
def why_unusable() -> str | None:
    if _interpreted():
        return None
    if not torch.cuda.is_available() and not torch.xpu.is_available():
        return "torch finds no GPU; on the CPU it needs TRITON_INTERPRET=1, which is slow"
    try:
        # Its first use compiles a launcher, for which a compiler may be missing.
        triton.runtime.driver.active.get_current_target()
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"Triton's driver does not start: {error}"
    return None


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type not in _DEVICES and not (device.type == "cpu" and _interpreted()):
        return f"it supports tensors on a GPU, not on {device.type}"
    if dtype not in _DTYPES:
        return f"it supports float32, float16 and bfloat16, not {dtype}"
    return None if N <= _MAX_STATES else f"it supports up to {_MAX_STATES} states, not {N}"


# ---- the cut into programs


@functools.cache
def _staged_row(tile: Tile) -> int:
    row: int = staged_row(tile.channels)
    return row


@functools.cache
def processors(device: torch.device) -> int:
    """Number of multiprocessors of a GPU, 0 for a CPU."""
    if device.type == "cpu":
        return 0
    properties = torch.get_device_module(device).get_device_properties(device)
    return int(
        properties.multi_processor_count if device.type == "cuda" else properties.gpu_subslice_count
    )


@dataclass(frozen=True)
class Layout:
    """B images or sequences with K directions or groups of D channels, H * W steps each; R values
    of dt's projection precede Bs and Cs. The strides are those of SCAN in unspecialised.py."""

    B: int
    K: int
    D: int
    H: int
    W: int
    N: int
    R: int
    image: bool
    strides: tuple[int, ...]

    @property
    def chunks(self) -> int:
        return -(-self.H * self.W // chunk_length)


class _Pass:
    """A pass over all sequences of a layout: its tile, its splits, and its launches."""

    def __init__(self, layout: Layout, device: torch.device, item: int, backwards: bool) -> None:
        self.layout, self.item, self.backwards = layout, item, backwards
        slots = _PROGRAMS_PER_PROCESSOR * processors(device)
        self.tile = self._tile(slots)
        self.blocks = -(-layout.D // self.tile.channels)
        self.split_chunks = self._split_chunks(self.tile, slots)
        self.splits = -(-layout.chunks // self.split_chunks)
        # More channels share the cost of a step, but must not leave most of the device empty.
        self.split_tile = split_tile(layout.N, _interpreted())
        self.parts = self._parts(slots)
        if not self._fill(self.split_tile, slots, (self.splits - 1) * self.parts):
            self.split_tile = scan_tile(layout.N, False, _interpreted())
            self.parts = self._parts(slots)
        # ptxas would use all of a lane's registers, leaving too few warps to hide latencies; the
        # option exists for NVIDIA GPUs only.
        limited = device.type == "cuda" and torch.version.cuda is not None
        self._options = {
            "num_warps": 1,
            "enable_fp_fusion": True,  # no longer Triton's default from 3.10 on
            **({"maxnreg": _MAX_REGISTERS} if limited else {}),
        }
        self._launches: dict[tuple[Any, ...], Launch] = {}

    def _programs(self, tile: Tile) -> int:
        s = self.layout
        return s.B * s.K * -(-s.D // tile.channels)

    def _split_chunks(self, tile: Tile, slots: int) -> int:
        return split_chunks(self._programs(tile), self.layout.chunks, slots, self.backwards)

    def _parts(self, slots: int) -> int:
        """Number of parts into which the pass over splits cuts each: enough programs to fill the
        device."""
        programs = self._programs(self.split_tile) * (self.splits - 1)
        return max(1, min(slots // programs, self.split_chunks)) if programs else 1

    def _fill(self, tile: Tile, slots: int, splits: int = 1) -> bool:
        """Whether there are enough programs for this many splits: wide ones gain more than empty
        slots lose unless most slots are empty. See docs/kernels.md."""
        return 5 * self._programs(tile) * splits >= 2 * slots

    def _tile(self, slots: int) -> Tile:
        """In the forward pass the wide tile, if it leaves no more channels idle, and if either its
        programs are enough, or not even the narrow tile's are, so that sequences are split anyway.
        In the backward pass it would use all registers of a lane, and leave eight of a
        multiprocessor's twelve programs."""
        s = self.layout
        narrow, wide = (
            scan_tile(s.N, self.backwards, _interpreted()),
            wide_tile(s.N, _interpreted()),
        )
        if self.backwards or -s.D % wide.channels > -s.D % narrow.channels:
            return narrow
        split, wide_split = (self._split_chunks(tile, slots) < s.chunks for tile in (narrow, wide))
        return wide if split or (self._fill(wide, slots) and not wide_split) else narrow

    def run(self, kernel: Any, *pointers: Tensor | None, **options: Any) -> None:
        """One launch or, if determinism requires it, one per set of sums that must not be added to
        the same address at the same time."""
        directions, blocks = self.layout.K, self.blocks
        if torch.are_deterministic_algorithms_enabled():
            directions = 1 if self.layout.image else directions
            blocks = 1 if self.backwards else blocks
        for first_direction in range(0, self.layout.K, directions):
            for first_block in range(0, self.blocks, blocks):
                place = (directions, blocks, first_direction, first_block)
                self._launch(kernel, self.tile, self.splits, place, *pointers, **options)

    def split_states(
        self, x: Tensor, dt: Tensor | None, *pointers: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """For each split but the last in its direction: what it adds to the state (or adjoint)
        entering it, and its sum of dt. Without dt the programs compute it."""
        if self.splits == 1:
            return None, None
        s, tile = self.layout, self.split_tile
        rows, programs = (s.B, s.K, self.splits * self.parts, s.D), (self.splits - 1) * self.parts
        state = x.new_empty((*rows, s.N), dtype=torch.float32)
        total_dt = x.new_empty(rows, dtype=torch.float32)
        place = (s.K, -(-s.D // tile.channels), 0, 0)
        self._launch(
            forward.split_kernel, tile, programs, place,
            x, self._staged_dt(x, tile, programs) if dt is None else dt, *pointers, state, total_dt,
            R=s.R, STAGED=dt is None, BACKWARD=self.backwards, WHOLE=s.H * s.W % (2 * tile.U) == 0,
        )  # fmt: skip
        return state, total_dt

    def scan(self, x: Tensor, dt: Tensor | None, *pointers: Tensor | None, **options: bool) -> None:
        """The forward scan; without dt the programs compute it."""
        self.run(
            forward.forward_kernel,
            x, self._staged_dt(x, self.tile, self.splits) if dt is None else dt, *pointers,
            R=self.layout.R, STAGED=dt is None, SPLIT=self.splits > 1, **options,
        )  # fmt: skip

    def _launch(
        self, kernel: Any, tile: Tile, splits: int, place: tuple[int, int, int, int],
        *pointers: Tensor | None, **options: Any,
    ) -> None:  # fmt: skip
        """Programs for each image and split, for a number of directions and blocks of channels from
        the first given ones on."""
        s = self.layout
        # In whole tiles of images a lane's values are adjacent, and aligned if tensors are.
        even = s.D % tile.channels == 0
        wide = s.image and even and s.N == tile.NH * tile.NL
        aligned = alignment(*pointers) if wide else 0
        key = (kernel.fn, place, aligned, *options.values())
        bound = self._launches.get(key)
        if bound is None:
            directions, blocks, first_direction, first_block = place
            numbers = (
                s.D, s.H, s.W, s.K, directions, blocks, self.splits, self.parts, self.split_chunks,
                s.chunks, first_direction, first_block, *s.strides, 1,
            )  # fmt: skip
            piece = common(aligned, s.R * self.item, s.N * self.item) if s.R else aligned
            far = s.H * s.W * max(s.D, s.K * (s.R + 2 * s.N)) >= _INT32_VALUES
            constants = {
                "N": s.N, "NH": tile.NH, "NL": tile.NL, "DH": tile.DH, "DL": tile.DL,
                "T": chunk_length, "U": tile.U, "EVEN": even, "ALIGN": aligned, "PIECE": piece,
                "INDEX_64BIT": far, "IMAGE": s.image, **options,
            }  # fmt: skip
            grid = (s.B * directions * blocks * splits,)
            bound = Launch(kernel, grid, numbers, constants, self._options)
            self._launches[key] = bound
        bound(*pointers)

    def scratch(self, like: Tensor) -> Tensor:
        """Scratch for each program's states at the starts of a chunk's segments."""
        tile = self.tile
        states = tile.NH * tile.DH * tile.NL * tile.DL
        return self._room(like, tile, self.splits, chunk_length // tile.U * states)

    def _staged_dt(self, like: Tensor, tile: Tile, splits: int) -> Tensor:
        """Scratch for each program's dt of a chunk."""
        return self._room(like, tile, splits, chunk_length * _staged_row(tile))

    def _room(self, like: Tensor, tile: Tile, splits: int, each: int) -> Tensor:
        return like.new_empty((self._programs(tile) * splits, each), dtype=torch.float32)


@functools.lru_cache(maxsize=4096)
def _pass_of(layout: Layout, device: torch.device, item: int, backwards: bool) -> _Pass:
    return _Pass(layout, device, item, backwards)


def pass_over(layout: Layout, like: Tensor, backwards: bool) -> _Pass:
    return _pass_of(layout, like.device, like.element_size(), backwards)


# ---- the scan, whatever its layout


def scan(
    plan: _Pass, x: Tensor, dt: Tensor | None, maps: Tensor, weight: Tensor | None,
    bias: Tensor | None, A: Tensor, y: Tensor, states: Tensor | None, last: Tensor | None,
) -> None:  # fmt: skip
    """Without dt it is computed from the first values in maps, weight and bias. For images A is
    log(-A)."""
    inputs = (x, dt, maps, weight, bias, A)
    split = plan.split_states(*inputs)
    plan.scan(*inputs, y, states, last, *split, SAVE=states is not None, LAST=last is not None)


def scan_backward(
    plan: _Pass, softplus: bool, dy: Tensor, x: Tensor, dt: Tensor, maps: Tensor, A: Tensor,
    states: Tensor, dlast: Tensor | None, dx: Tensor, dmaps: Tensor, parameters_wanted: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of dt before softplus, in x's dtype, and, if wanted, of A (for images, of its
    logarithm; like A), the bias and Ds (K * D,). Adds to dmaps, and to dx, which is written instead
    for sequences."""
    layout = plan.layout
    N, channels, rows = layout.N, layout.K * layout.D, layout.B * plan.splits
    ddt = torch.empty_like(dt, dtype=x.dtype)
    # One row per image and split, so that they are summed in a fixed order.
    sums = None
    if parameters_wanted:
        sums = x.new_empty((rows, channels * (N + 2)), dtype=torch.float32)
    split = plan.split_states(dy, dt, maps, None, None, A)
    plan.run(
        backward.backward_kernel, dy, x, dt, maps, A, states, plan.scratch(x), dlast, dx, ddt,
        dmaps, sums, *split, SOFTPLUS=softplus, LAST=dlast is not None, SPLIT=plan.splits > 1,
    )  # fmt: skip
    if sums is None:
        return ddt, None, None, None
    dA, dbias, dDs = torch.empty_like(A), A.new_empty(channels), A.new_empty(channels)
    columns = 32
    launch(
        parameters.sums_kernel, (-(-channels * (N + 2) // columns),),
        (sums, A if layout.image else None, dA, dbias, dDs, rows, channels),
        {"N": N, "ROWS": 32, "COLUMNS": columns},
    )  # fmt: skip
    return ddt, dA, dbias, dDs


# ---- ss2d


@functools.lru_cache(maxsize=4096)
def _image_layout(shape: tuple[int, ...], N: int, R: int) -> Layout:
    """Of x (B, H, W, D), dt (4, B, L, D) and maps (B, L, 4, R + 2N)."""
    B, H, W, D = shape
    L, row = H * W, R + 2 * N
    strides = (L * D, 0, D, 1, L * D, B * L * D, L * DIRECTIONS * row, row, DIRECTIONS * row, 1)
    return Layout(B, DIRECTIONS, D, H, W, N, R, True, strides)


def ss2d_sizes(device: torch.device, dtype: torch.dtype, D: int, N: int, R: int) -> tuple[int, int]:
    return N, R


def ss2d_forward(inputs: SS2DInputs, out_dtype: torch.dtype, save: bool) -> tuple[Tensor, Tensor]:
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see ops/ss2d.py."""
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    B, H, W, D = x.shape
    N, R, projection = A_logs.shape[1], dt_projs_weight.shape[2], (dt_projs_weight, dt_projs_bias)
    with current(x.device):
        # A program's own matrix product is of 16-bit values, whose products are exact in float32.
        staged = x.dtype != torch.float32
        plan = pass_over(_image_layout(x.shape, N, R if staged else 0), x, False)
        dt, maps = None, proj
        if not staged:
            dt = x.new_empty((DIRECTIONS, B, H * W, D))
            maps = x.new_empty((B, H * W, DIRECTIONS, 2 * N))
            project(proj, *projection, dt, maps, None)
        y = skip(x, Ds)
        shape = (B, DIRECTIONS, plan.layout.chunks, D, N) if save else (0,)
        states = x.new_empty(shape, dtype=torch.float32)
        scan(plan, x, dt, maps, *projection, A_logs, y, states if save else None, None)
    return as_dtype(y, out_dtype), states


def ss2d_backward(
    dy: Tensor, inputs: SS2DInputs, states: Tensor, wanted: SS2DWanted = ALL_SS2D
) -> Gradients:
    """The gradients of the six inputs, each like its input."""
    x, proj, dt_projs_weight, dt_projs_bias, A_logs, Ds = inputs
    B, H, W, D = x.shape
    N, L = A_logs.shape[1], H * W
    with current(x.device), torch.autocast(x.device.type, enabled=False):
        plan = pass_over(_image_layout(x.shape, N, 0), x, True)
        dt = x.new_empty((DIRECTIONS, B, L, D), dtype=torch.float32)
        maps = x.new_empty((B, L, DIRECTIONS, 2 * N), dtype=torch.float32)
        dmaps = torch.empty_like(maps)
        project(proj, dt_projs_weight, dt_projs_bias, dt, maps, dmaps)
        dx = skip(dy, Ds)
        ddt, dA_logs, dbias, dDs = scan_backward(
            plan, True, dy, x, dt, maps, A_logs, states, None, dx, dmaps, any(wanted[3:])
        )
        dproj, dweight = project_backward(ddt, dmaps, proj, dt_projs_weight, wanted.dt_projs_weight)
        if dbias is not None:
            dbias = dbias.view_as(dt_projs_bias)
    return as_dtype(dx, x.dtype), dproj, dweight, dbias, dA_logs, dDs
