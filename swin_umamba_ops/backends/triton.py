"""The Triton kernels of triton_kernels: allocation, strides and the cut into programs.

Forwards, for half inputs, a program makes dt itself, a chunk at a time, from the low-rank part of
the projection, and reads Bs and Cs where the projection has them. Else a kernel of its own makes dt
and brings Bs and Cs to float32. The scans add float32 sums in place: no direction has a copy of its
own. Inputs of selective_scan go through the same kernels as one-direction sequences.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from swin_umamba_ops.backends._device import current
from swin_umamba_ops.backends.triton_kernels import backward, forward, project
from swin_umamba_ops.numerics import softplus
from swin_umamba_ops.scan_order import DIRECTIONS

chunk_length = 32
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DEVICES = ("cuda", "xpu")
_LANES = 32
_MAX_STATES = 256
# What leaves room for as many programs, of one warp each, on a multiprocessor of 65536 registers.
_MOST_REGISTERS = 168
_PROGRAMS_PER_PROCESSOR = 12
_MOST_SPLITS = 64
_FAR = 2**31  # values in an image whose offsets take 64 bits


@functools.cache
def _interpreted() -> bool:
    return bool(triton.knobs.runtime.interpret)


@functools.cache
def why_unusable() -> str | None:
    if _interpreted():
        return None
    if not torch.cuda.is_available() and not torch.xpu.is_available():
        return "torch finds no GPU; on the CPU it needs TRITON_INTERPRET=1, which is slow"
    return None


def why_unsupported(device: torch.device, dtype: torch.dtype, N: int) -> str | None:
    if device.type not in _DEVICES and not (device.type == "cpu" and _interpreted()):
        return f"it serves tensors on a GPU, not on {device.type}"
    if dtype not in _DTYPES:
        return f"it serves float32, float16 and bfloat16, not {dtype}"
    return None if N <= _MAX_STATES else f"it serves up to {_MAX_STATES} states, not {N}"


# ---- the cut into programs


@dataclass(frozen=True)
class _Tile:
    """States and channels of a program: in a lane's registers (H) and over the lanes (L)."""

    NH: int
    NL: int
    DH: int
    DL: int
    U: int

    @property
    def channels(self) -> int:
        return self.DH * self.DL


@functools.cache
def _tile(N: int, backwards: bool, interpreted: bool) -> _Tile:
    """Registers for about 8 states and channels, and backwards for a segment's decays and states,
    none spilled; where the interpreter runs, and only the number of operations counts, more
    channels."""
    states = triton.next_power_of_2(N)
    NL = max(min(4, states), states // 8)
    NH, DL = states // NL, _LANES // NL
    DH = min(8, 128 // NH) if interpreted else max(1, min(4, 8 // NH))
    U = (2 if NH <= 4 else 1) if backwards else min(4, 16 // NH)
    return _Tile(NH, NL, DH, DL, U)


@functools.cache
def _split_tile(N: int, interpreted: bool) -> _Tile:
    """The splits' pass keeps little else: more channels share the cost of a step."""
    tile = _tile(N, False, interpreted)
    return replace(tile, DH=max(tile.DH, min(4, 16 // tile.NH)))


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type == "cpu":
        return 0
    properties = torch.get_device_module(device).get_device_properties(device)
    return int(
        properties.multi_processor_count if device.type == "cuda" else properties.gpu_subslice_count
    )


@dataclass(frozen=True)
class _Sizes:
    """B images or sequences of K directions or groups, D channels in each, H * W steps; before Bs
    and Cs lie R values of dt's projection."""

    B: int
    K: int
    D: int
    H: int
    W: int
    N: int
    R: int = 0

    @property
    def chunks(self) -> int:
        return -(-self.H * self.W // chunk_length)


@functools.cache
def _split_chunks(programs: int, chunks: int, slots: int, backwards: bool) -> int:
    """Chunks in a split, by what the last program to end has waited for and done.

    Many small programs share out more evenly among the `slots` that run at a time, but each folds
    what those before it add, and to find that takes a pass of its own.
    """
    own_pass = 0.2 if backwards else 0.5  # of a chunk's time; by instructions
    fold = 0.05

    def cost(length: int) -> float:
        splits = -(-chunks // length)
        rounds = -(-programs * splits // slots)
        return rounds * (length if splits == 1 else length * (1 + own_pass) + splits * fold)

    lengths = {-(-chunks // splits) for splits in range(1, min(chunks, _MOST_SPLITS) + 1)}
    return min(sorted(lengths, reverse=True), key=cost) if slots else chunks


class _Launch:
    """A pass over all sequences: its tile, its splits, and the launches it takes."""

    def __init__(self, sizes: _Sizes, like: Tensor, backwards: bool, image: bool) -> None:
        self.sizes, self.image, self.item = sizes, image, like.element_size()
        self.tile = _tile(sizes.N, backwards, _interpreted())
        self.blocks = -(-sizes.D // self.tile.channels)
        self.split_chunks = _split_chunks(
            sizes.B * sizes.K * self.blocks, sizes.chunks,
            _PROGRAMS_PER_PROCESSOR * _processors(like.device), backwards,
        )  # fmt: skip
        self.splits = -(-sizes.chunks // self.split_chunks)
        self.backwards = backwards
        # ptxas would take all of a lane's registers and leave too few warps to hide latencies; the
        # option is NVIDIA's.
        limited = like.device.type == "cuda" and torch.version.cuda is not None
        self.compiling = {
            "enable_fp_fusion": True,  # no longer Triton's default from 3.10 on
            **({"maxnreg": _MOST_REGISTERS} if limited else {}),
        }

    def run(self, kernel: Any, *pointers: Any, strides: tuple[int, ...], **options: Any) -> None:
        """One launch, or, where determinism asks for it, one for each set of sums that must not
        meet in one address at the same time."""
        directions, blocks = self.sizes.K, self.blocks
        if torch.are_deterministic_algorithms_enabled():
            directions = 1 if self.image else directions
            blocks = 1 if self.backwards else blocks
        for first_direction in range(0, self.sizes.K, directions):
            for first_block in range(0, self.blocks, blocks):
                place = (directions, blocks, first_direction, first_block)
                self._launch(
                    kernel, self.tile, self.splits, place, *pointers, strides=strides, **options
                )

    def split_states(
        self, x: Tensor, dt: Tensor | None, *pointers: Tensor | None, strides: tuple[int, ...]
    ) -> tuple[Tensor | None, Tensor | None]:
        """What each split but the last on the way adds to the state (or adjoint) that enters it,
        and its sum of dt. Without dt they make it themselves."""
        if self.splits == 1:
            return None, None
        s, tile = self.sizes, _split_tile(self.sizes.N, _interpreted())
        rows = (s.B, s.K, self.splits, s.D)
        state = x.new_empty((*rows, s.N), dtype=torch.float32)
        total_dt = x.new_empty(rows, dtype=torch.float32)
        place = (s.K, -(-s.D // tile.channels), 0, 0)
        self._launch(
            forward.split_kernel, tile, self.splits - 1, place,
            x, self._staged_dt(x, tile) if dt is None else dt, *pointers, state, total_dt,
            strides=strides, R=s.R, STAGED=dt is None, BACKWARD=self.backwards,
        )  # fmt: skip
        return state, total_dt

    def scan(
        self, x: Tensor, dt: Tensor | None, *pointers: Tensor | None, strides: tuple[int, ...],
        **options: Any,
    ) -> None:  # fmt: skip
        """The scan forwards; without dt the programs make it themselves."""
        self.run(
            forward.forward_kernel, x, self._staged_dt(x, self.tile) if dt is None else dt,
            *pointers, strides=strides, R=self.sizes.R, STAGED=dt is None, **options,
        )  # fmt: skip

    def _launch(
        self, kernel: Any, tile: _Tile, splits: int, place: tuple[int, int, int, int],
        *pointers: Any, strides: tuple[int, ...], **options: Any,
    ) -> None:  # fmt: skip
        """Programs for each image and split, and for so many directions and blocks of channels
        from the first ones on."""
        s, (directions, blocks, first_direction, first_block) = self.sizes, place
        # In whole tiles of images a lane's values are adjacent, and aligned if tensors are.
        even = s.D % tile.channels == 0
        wide = self.image and even and s.N == tile.NH * tile.NL
        wide = wide and all(t is None or t.data_ptr() % 16 == 0 for t in pointers)
        aligned = 16 if wide else 0
        piece = math.gcd(aligned, math.gcd(s.R, s.N) * self.item) if s.R and wide else aligned
        far = s.H * s.W * max(s.D, s.K * (s.R + 2 * s.N)) >= _FAR
        kernel[(s.B * directions * blocks * splits,)](
            *pointers,
            s.D, s.H, s.W, s.K, directions, blocks, self.splits, self.split_chunks,
            s.chunks, first_direction, first_block, *strides, 1,
            N=s.N, NH=tile.NH, NL=tile.NL, DH=tile.DH, DL=tile.DL, T=chunk_length,
            U=tile.U, EVEN=even, WIDE=aligned, PIECE=piece, FAR=far, IMAGE=self.image,
            num_warps=1, **self.compiling, **options,
        )  # fmt: skip

    def scratch(self, like: Tensor) -> Tensor:
        """Room for each program's states at the starts of a chunk's segments."""
        tile = self.tile
        states = tile.NH * tile.DH * tile.NL * tile.DL
        return self._room(like, tile, chunk_length // tile.U * states)

    def _staged_dt(self, like: Tensor, tile: _Tile) -> Tensor:
        """Room for each program's dt of a chunk."""
        return self._room(like, tile, chunk_length * project.staged_row(tile.channels))

    def _room(self, like: Tensor, tile: _Tile, each: int) -> Tensor:
        s = self.sizes
        programs = s.B * s.K * -(-s.D // tile.channels) * self.splits
        return like.new_empty((programs, each), dtype=torch.float32)

    def partial(self, like: Tensor, *tail: int) -> Tensor:
        """Rows of partial sums, one for each image and split: summed later in a fixed order."""
        s = self.sizes
        return like.new_empty((s.B * self.splits, s.K * s.D, *tail), dtype=torch.float32)


# ---- the scan, whatever its layout


def _scan(
    sizes: _Sizes, image: bool, x: Tensor, dt: Tensor | None, maps: Tensor, weight: Tensor | None,
    bias: Tensor | None, A: Tensor, y: Tensor, states: Tensor | None, last: Tensor | None,
    strides: tuple[int, ...],
) -> None:  # fmt: skip
    """Without dt it is made from the first values in maps, weight and bias."""
    launch = _Launch(sizes, x, False, image)
    inputs = (x, dt, maps, weight, bias, A)
    split = launch.split_states(*inputs, strides=strides)
    launch.scan(
        *inputs, y, states, last, *split, strides=strides,
        SAVE=states is not None, LAST=last is not None, SPLIT=launch.splits > 1,
    )  # fmt: skip


@dataclass(frozen=True)
class _Gradients:
    """Of a scan: dt before softplus, in x's dtype; maps and sums over images in float32."""

    dt: Tensor
    maps: Tensor
    A: Tensor
    bias: Tensor
    Ds: Tensor


def _scan_backward(
    sizes: _Sizes, image: bool, softplus: bool, dy: Tensor, x: Tensor, dt: Tensor, maps: Tensor,
    A: Tensor, states: Tensor, dlast: Tensor | None, dx: Tensor, strides: tuple[int, ...],
) -> _Gradients:  # fmt: skip
    """Adds to dx (or, in sequences, writes it)."""
    launch = _Launch(sizes, x, True, image)
    ddt, dmaps = torch.empty_like(dt, dtype=x.dtype), torch.zeros_like(maps)
    dA, dbias, dDs = launch.partial(x, sizes.N), launch.partial(x), launch.partial(x)
    split = launch.split_states(dy, dt, maps, None, None, A, strides=strides)
    launch.run(
        backward.backward_kernel, dy, x, dt, maps, A, states, launch.scratch(x), dlast, dx, ddt,
        dmaps, dA, dbias, dDs, *split, strides=strides, SOFTPLUS=softplus, LAST=dlast is not None,
        SPLIT=launch.splits > 1,
    )  # fmt: skip
    return _Gradients(ddt, dmaps, dA.sum(0), dbias.sum(0), dDs.sum(0))


# ---- ss2d


def _image_layout(x: Tensor, N: int, R: int) -> tuple[_Sizes, tuple[int, ...]]:
    """Sizes, and strides of x (B, H, W, D), dt (4, B, L, D) and maps (B, L, 4, R + 2N)."""
    B, H, W, D = x.shape
    L, row = H * W, R + 2 * N
    strides = (L * D, 0, D, 1, L * D, B * L * D, L * DIRECTIONS * row, row, DIRECTIONS * row, 1)
    return _Sizes(B, DIRECTIONS, D, H, W, N, R), strides


def _projected(
    x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, N: int
) -> tuple[Tensor, Tensor]:
    """dt (4, B, L, D), and Bs and Cs (B, L, 4, 2N), in float32."""
    B, H, W, D = x.shape
    R = dt_projs_weight.shape[2]
    dt = x.new_empty((DIRECTIONS, B, H * W, D), dtype=torch.float32)
    maps = x.new_empty((B, H * W, DIRECTIONS, 2 * N), dtype=torch.float32)
    rows, block = B * H * W, (64, 64)
    project.image_kernel[(-(-rows // block[0]) * -(-D // block[1]), DIRECTIONS)](
        proj, dt_projs_weight, dt_projs_bias, dt, maps, rows, D, R, N=N,
        BLOCK_L=block[0], BLOCK_D=block[1], BLOCK_R=min(64, max(16, triton.next_power_of_2(R))),
        BLOCK_N=min(64, triton.next_power_of_2(2 * N)), EXACT=x.dtype == torch.float32, num_warps=8,
    )  # fmt: skip
    return dt, maps


def ss2d_forward(
    x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor,
    Ds: Tensor, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, H, W, D) and, if `save`, the states (B, 4, C, D, N); see library.py."""
    with current(x.device):
        N, R, projection = (
            A_logs.shape[1],
            dt_projs_weight.shape[2],
            (dt_projs_weight, dt_projs_bias),
        )
        if x.dtype == torch.float32:
            sizes, strides = _image_layout(x, N, 0)
            dt, maps = _projected(x, proj, *projection, N)
        else:
            # A program's own matrix product is of halves, whose products are exact in float32.
            sizes, strides = _image_layout(x, N, R)
            dt, maps = None, proj
        y = x * Ds.view(DIRECTIONS, sizes.D).sum(0)  # float32
        shape = (sizes.B, DIRECTIONS, sizes.chunks, sizes.D, sizes.N) if save else (0,)
        states = x.new_empty(shape, dtype=torch.float32)
        _scan(
            sizes, True, x, dt, maps, *projection, -torch.exp(A_logs), y,
            states if save else None, None, strides,
        )  # fmt: skip
    return y.to(out_dtype), states


def ss2d_backward(
    dy: Tensor, x: Tensor, proj: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor,
    A_logs: Tensor, Ds: Tensor, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of the six inputs from x to Ds, each like its input."""
    N, R = A_logs.shape[1], dt_projs_weight.shape[2]
    with current(x.device), torch.autocast(x.device.type, enabled=False):
        sizes, strides = _image_layout(x, N, 0)
        dt, maps = _projected(x, proj, dt_projs_weight, dt_projs_bias, N)
        A = -torch.exp(A_logs)
        dx = dy * Ds.view(DIRECTIONS, sizes.D).sum(0)  # float32
        grads = _scan_backward(sizes, True, True, dy, x, dt, maps, A, states, None, dx, strides)
        ddt, weight = grads.dt, dt_projs_weight.to(x.dtype)  # (4, B, L, D), (4, D, R)
        dt_r = proj.flatten(1, 2)[..., :R].permute(2, 0, 1, 3).to(x.dtype)  # (4, B, L, R)
        dproj = torch.empty_like(proj)
        dproj.flatten(1, 2)[..., R:] = grads.maps
        dproj.flatten(1, 2)[..., :R] = (ddt @ weight[:, None]).permute(1, 2, 0, 3)
        # Image by image: a product over all positions at once would keep few processors busy.
        dweight = (ddt.transpose(2, 3) @ dt_r).sum(1).to(dt_projs_weight.dtype)
    return (
        dx.to(x.dtype), dproj, dweight, grads.bias.view_as(dt_projs_bias), grads.A * A, grads.Ds
    )  # fmt: skip


# ---- selective_scan


def _sequence_inputs(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[_Sizes, tuple[int, ...], Tensor, Tensor]:  # fmt: skip
    """Sizes, strides, dt (B, D, L) and Bs and Cs (B, G, 2N, L), in float32."""
    B, D, L = u.shape
    G, N = Bs.shape[1:3]
    dt = delta.float()
    if delta_bias is not None:
        dt = dt + delta_bias[:, None]
    if delta_softplus:
        dt = softplus(dt)
    maps = torch.cat([Bs, Cs], dim=2).float()
    each = D // G
    strides = (D * L, each * L, 1, L, D * L, each * L, G * 2 * N * L, 2 * N * L, 1, L)
    return _Sizes(B, G, each, 1, L, N), strides, dt, maps


def selective_scan_forward(
    u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor, Cs: Tensor, Ds: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, out_dtype: torch.dtype, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """out (B, D, L), the last state (B, D, N) and, if `save`, states (B, C, D, N)."""
    B, D, _ = u.shape
    with current(u.device):
        sizes, strides, dt, maps = _sequence_inputs(u, delta, A, Bs, Cs, delta_bias, delta_softplus)
        out = torch.empty_like(u, dtype=torch.float32)
        last = u.new_empty((B, D, sizes.N), dtype=torch.float32)
        # The kernels keep a group's states together.
        shape = (B, sizes.K, sizes.chunks, sizes.D, sizes.N)
        states = u.new_empty(shape, dtype=torch.float32) if save else None
        _scan(sizes, False, u, dt, maps, None, None, A, out, states, last, strides)
        if Ds is not None:
            out.addcmul_(u.float(), Ds[:, None])
        kept = (
            u.new_empty((0,), dtype=torch.float32)
            if states is None
            else states.transpose(1, 2).reshape(B, sizes.chunks, D, sizes.N)
        )
    return out.to(out_dtype), last, kept


def selective_scan_backward(
    dout: Tensor, dlast: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, Bs: Tensor,
    Cs: Tensor, Ds: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool, states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of u, delta, A, Bs, Cs, Ds and delta_bias, each like its input."""
    with current(u.device), torch.autocast(u.device.type, enabled=False):
        sizes, strides, dt, maps = _sequence_inputs(u, delta, A, Bs, Cs, delta_bias, delta_softplus)
        du = torch.empty_like(u, dtype=torch.float32)
        grouped = states.view(sizes.B, sizes.chunks, sizes.K, sizes.D, sizes.N)
        grads = _scan_backward(
            sizes, False, delta_softplus, dout, u, dt, maps, A,
            grouped.transpose(1, 2).contiguous(), dlast, du, strides,
        )  # fmt: skip
        if Ds is not None:
            du.addcmul_(dout.float(), Ds[:, None])
        dBs, dCs = grads.maps.split(sizes.N, dim=2)
        absent = u.new_empty((0,), dtype=torch.float32)
    return (
        du.to(u.dtype), grads.dt.to(delta.dtype), grads.A, dBs.to(Bs.dtype).contiguous(),
        dCs.to(Cs.dtype).contiguous(),
        absent if Ds is None else grads.Ds, absent.clone() if delta_bias is None else grads.bias,
    )  # fmt: skip
