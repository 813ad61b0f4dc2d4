"""The verb `classes`: a training step's kernels by class, and the share of its floor that each has.

A step is forward, loss, backward, unscaling, clipping and AdamW. Every operator of the step is
assigned to a class; its kernels' times are added up, and so are the floors of its calls.

ms       the device's time in the class's kernels, without gaps, in one eager step
floor    the least time that the class's calls allow, each on its own: tensors read once and written
         once at the rate of a copy, multiply-adds at the rate of a large matrix product of that
         dtype, or exponentials at the rate of exp2 alone, whichever takes longest. A norm has to
         read its input twice, so it can reach half to three quarters of its floor at most.
share    floor / ms
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.measuring import environment, timing
from benchmarks.measuring.cases import DIRECTIONS, ModelCase
from benchmarks.measuring.tables import table
from benchmarks.models.competitors import (
    LOSS_SCALE,
    autocast,
    build_ours,
    loss_of,
    supervise,
    weights,
)
from benchmarks.models.gate import batch
from benchmarks.models.run import autocast_dtype
from benchmarks.ops.floors import Ceilings, measure_ceilings
from benchmarks.render import model_report

SCANS, OPTIMIZER, OTHER = "scans", "optimizer, clipping", "elementwise, copies, sums"
_CLASSES = (
    (SCANS, ("ss2d_scan", "selective_scan")),
    (
        "convolutions, with the norms before them",
        ("convolution", "conv3x3", "norm_act_conv3x3", "cudnn_convolution"),
    ),
    ("norms with activations and residuals", ("instance_norm_act", "layer_norm", "native_layer")),
    ("depthwise convolutions with SiLU", ("depthwise_conv_silu",)),
    ("matrix products", ("mm", "addmm", "bmm", "baddbmm", "mlp_gelu")),
    ("loss", ("segmentation_sums",)),
)
_NO_KERNEL = ("empty", "new_empty", "detach", "lift")
_OVERWRITTEN = ("copy_", "fill_", "zero_")
_MARK = "class: "


@dataclass(frozen=True)
class Rates:
    """The device's rates per second: bytes, operations (two per multiply-add), exponentials."""

    copy_bytes: float
    operations: float
    exponentials: float | None


@dataclass
class Row:
    """One class in one model's step."""

    model: str
    case: str
    dtype: str
    name: str
    ms: float
    floor_ms: float
    kernels: int


@dataclass(frozen=True)
class Settings:
    """What to measure; see the help of `python -m benchmarks classes`."""

    device: torch.device
    models: Sequence[str]
    case: ModelCase
    dtype: str
    tiny: bool = False


def run(settings: Settings, *, tree: str | None = None, out: Path | None = None) -> list[Row]:
    """Measure every model; printed, and saved to `out`, after each."""
    rates = measured_rates(settings)
    rows: list[Row] = []
    facts = environment.describe(settings.device, tree)
    for model in settings.models:
        rows += _measured(settings, model, rates)
        print(markdown(rows), file=sys.stderr, flush=True)
        if out is not None:
            measured = [asdict(row) for row in rows]
            content = {"environment": facts, "rates": asdict(rates), "classes": measured}
            out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return rows


def load(path: Path) -> list[Row] | None:
    """The rows of a file of this verb, None for other results."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**row) for row in content["classes"]] if "classes" in content else None


def markdown(rows: Iterable[Row]) -> str:
    """A table with a column for each model: ms, and the share of the floor."""
    by_key = {(row.name, row.model): row for row in rows}
    models = list(dict.fromkeys(model for _, model in by_key))
    names = list(dict.fromkeys(name for name, _ in by_key))
    lines = [
        [name, *(_cell([by_key[name, m]] if (name, m) in by_key else []) for m in models)]
        for name in names
    ]
    whole = [[row for row in by_key.values() if row.model == model] for model in models]
    lines.append(["all kernels", *map(_cell, whole)])
    return table(["ms (share of the floor)", *map(model_report.network, models)], lines)


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    ms, floor = sum(row.ms for row in rows), sum(row.floor_ms for row in rows)
    return f"{ms:.2f} ({floor / ms:.0%})" if ms else "-"


def class_of(operator: str) -> str:
    """The class of an operator by its name, such as "convolution_backward"."""
    base = operator.rstrip("_").removesuffix("_backward")
    return next((name for name, operators in _CLASSES if base in operators), OTHER)


def measured_rates(settings: Settings) -> Rates:
    """Measure this device's rates by a copy, a large matrix product, and exponentials alone."""
    device, dtype = settings.device, autocast_dtype(settings.dtype) or torch.float32
    found: Ceilings = measure_ceilings(device, tiny=settings.tiny)
    size = 8192 if device.type == "cuda" else 256
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = timing.Times.of(timing.measure([lambda: left @ right], 5, device))
    operations = 2 * size**3 / (times.median / 1e3)
    return Rates(found.copy_bytes_per_second, operations, found.exp2_per_second)


def _measured(settings: Settings, name: str, rates: Rates) -> list[Row]:
    device, case = settings.device, settings.case
    torch.manual_seed(0)
    built = build_ours(name, settings.tiny, weights(name, settings.tiny))
    model = supervise(built.to(device).train(), True)
    image, target = batch(case.B, case.H, case.W, device, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    scaler = torch.amp.GradScaler(device.type, init_scale=LOSS_SCALE)
    dtype = autocast_dtype(settings.dtype)

    def step(classified: _Classified | None = None) -> None:
        with autocast(image, dtype):
            loss = loss_of(model(image), target)
        scaler.scale(loss).backward()
        if classified is not None:
            classified.phase = OPTIMIZER
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 12.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    timing.synchronize(device)
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    classified = _Classified(rates)
    with profile(activities=activities) as recorded, classified:
        step(classified)
        timing.synchronize(device)
    times = _times(recorded.events(), on_gpu)
    names = [*(entry for entry, _ in _CLASSES), OTHER, OPTIMIZER]
    return [
        Row(name, case.label, settings.dtype, each, *_both(times[each], classified.floors[each]))
        for each in names
        if each in times
    ]


def _both(measured: tuple[float, int], floor: float) -> tuple[float, float, int]:
    return measured[0], 1e3 * floor, measured[1]


def _times(events: Iterable[FunctionEvent], on_gpu: bool) -> dict[str, tuple[float, int]]:
    """Milliseconds and kernels of each class; kernels of no operator count as OTHER."""
    found: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    rest, rest_count = 0.0, 0
    for event in events:
        if not on_gpu:
            if event.name.startswith(_MARK):
                ms, count = found[event.name.removeprefix(_MARK)]
                found[event.name.removeprefix(_MARK)] = (ms + event.cpu_time_total / 1e3, count + 1)
            continue
        if event.device_type == DeviceType.CUDA and not event.name.startswith(_MARK):
            rest, rest_count = rest + event.self_device_time_total / 1e3, rest_count + 1
        if event.device_type != DeviceType.CPU or not event.kernels:
            continue
        name = next((mark for mark in _marks(event)), OTHER)
        ms, count = found[name]
        times = [kernel.duration / 1e3 for kernel in event.kernels]
        found[name] = (ms + sum(times), count + len(times))
    if on_gpu:
        ms, count = found[OTHER]
        rest -= sum(time for time, _ in found.values())
        rest_count -= sum(number for _, number in found.values())
        found[OTHER] = (ms + max(rest, 0.0), count + max(rest_count, 0))
    return found


def _marks(event: FunctionEvent) -> Iterator[str]:
    """The classes of an event's operators, innermost first."""
    at: FunctionEvent | None = event
    while at is not None:
        if at.name.startswith(_MARK):
            yield at.name.removeprefix(_MARK)
        at = at.cpu_parent


class _Classified(TorchDispatchMode):
    """Marks every operator's kernels with its class, and adds up the floors of the classes.

    phase: the class of everything from now on, if set.
    """

    def __init__(self, rates: Rates) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rates = rates
        self.phase: str | None = None
        self.floors: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        operator = func.overloadpacket.__name__
        name = self.phase or class_of(operator)
        with record_function(_MARK + name):
            out = func(*args, **options)
        self.floors[name] += self._floor(func, operator, args, options, out)
        return out

    def _floor(
        self, func: Any, operator: str, args: Any, options: dict[str, Any], out: Any
    ) -> float:
        """The least seconds for one call."""
        seconds = _moved(func, operator, args, out) / self.rates.copy_bytes
        if operator.startswith("ss2d_scan"):
            x, A_logs = (args[1], args[5]) if "backward" in operator else (args[0], args[4])
            if self.rates.exponentials is not None:
                done = DIRECTIONS * x.numel() * A_logs.shape[1]
                seconds = max(seconds, done / self.rates.exponentials)
            return seconds
        return max(seconds, _operations(func, operator, args, options, out) / self.rates.operations)


def _operations(func: Any, operator: str, args: Any, options: dict[str, Any], out: Any) -> float:
    if "conv3x3" in operator:
        backward = operator.endswith("backward")
        y = args[0] if backward else tree_leaves(out)[0]
        x = args[1] if backward else args[0]
        count = sum(t.numel() > 0 for t in tree_leaves(out)[:2]) if backward else 1
        return float(count * 2 * 9 * y.numel() * x.shape[3])
    formula: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
    return 0.0 if formula is None else float(formula(*args, **options, out_val=out))


def _moved(func: Any, operator: str, args: Any, out: Any) -> int:
    """Bytes read and written at least: every tensor once, broadcast values once."""
    schema = func._schema
    aliases = [result.alias_info for result in schema.returns]
    if operator.startswith(_NO_KERNEL) or any(a is not None and not a.is_write for a in aliases):
        return 0
    read: dict[tuple[int, int], int] = {}
    written = 0
    for argument, value in zip(schema.arguments, args, strict=False):
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        for t in tree_leaves(value):
            if not isinstance(t, Tensor):
                continue
            if is_written:
                written += _size(t)
            if not (is_written and operator in _OVERWRITTEN):
                read[t.data_ptr(), t.numel()] = _size(t)
    if not any(aliases):
        written += sum(_size(t) for t in tree_leaves(out) if isinstance(t, Tensor))
    return sum(read.values()) + written


def _size(t: Tensor) -> int:
    """Bytes of a tensor, values that are repeated by a stride of 0 counted once."""
    count = t.element_size()
    for length, stride in zip(t.shape, t.stride(), strict=True):
        count *= 1 if stride == 0 and length else length
    return count
