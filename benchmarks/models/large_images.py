"""Prediction of one large image by sliding windows: seconds, the device's share of them, memory.

An image of noise with 8 bits per channel, z-scored, is segmented by a Predictor as files are, from
raw pixels to the mask on the host. A smaller image comes first, so that kernels are built and CUDA
graphs chosen. DynUNet's widths are such that a window takes about as many FLOPs as one of the first
model.

seconds         the least of the rounds
windows_share   of these, the time that the same windows take one after another on the device alone
busy            of the smaller image's seconds, the time in which the device runs a kernel, by
                torch's profiler, which itself takes time
host, device    peak bytes beyond those before the call; the image itself is not counted
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import environment, host_memory
from benchmarks.measuring.timing import synchronize
from swin_umamba.common.devices import amp_on
from swin_umamba.data import Intensity, Plan
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare.normalization import Scheme
from swin_umamba.inference.network import Checked
from swin_umamba.inference.predictor import Predictor
from swin_umamba.models import create_model
from swin_umamba.models.summary import summarize

DYNUNET = "dynunet"
CHANNELS, CLASSES = 3, 4
_WARM_ROWS = 13  # of windows, for the choice of graphs
_WIDEST = 16  # times dynunet's finest width, as nnU-Net plans


@dataclass(frozen=True)
class Settings:
    """What is predicted, and how; see the help of `python -m benchmarks inference`."""

    device: torch.device
    models: tuple[str, ...] = ("swin_umamba_d",)
    side: int = 8192
    patch: int = 320
    batch: int | None = None
    amp: str = "auto"
    rounds: int = 2
    graphs: tuple[bool | str, ...] = ("auto",)
    tiny: bool = False


@dataclass
class Row:
    """One model and one way of launching it."""

    model: str
    cuda_graph: bool | str
    gflops_window: float
    windows: int
    seconds: float
    windows_share: float
    busy: float | None
    host_bytes: int | None
    device_bytes: int | None


def run(settings: Settings, *, tree: str | None = None, out: Path | None = None) -> list[Row]:
    """Measure every model; printed, and saved to `out`, after each."""
    rows: list[Row] = []
    facts = environment.describe(settings.device, tree)
    for name in settings.models:
        for graph in settings.graphs:
            rows.append(_measured(settings, name, graph))
            print(markdown(rows), file=sys.stderr, flush=True)
            if out is not None:
                named = {**asdict(settings), "device": str(settings.device)}
                content = {"environment": facts, "settings": named, "rows": [*map(asdict, rows)]}
                out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return rows


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table."""
    lines = [
        "| model | cuda_graph | GFLOPs a window | windows | s | windows' share | busy | host MB |"
        " device MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        memory = [
            "-" if size is None else f"{size / 1e6:.0f}"
            for size in (row.host_bytes, row.device_bytes)
        ]
        busy = "-" if row.busy is None else f"{row.busy:.1%}"
        lines.append(
            f"| {row.model} | {row.cuda_graph} | {row.gflops_window:.2f} | {row.windows} |"
            f" {row.seconds:.2f} | {row.windows_share:.1%} | {busy} | {' | '.join(memory)} |"
        )
    return "\n".join(lines)


def _measured(settings: Settings, name: str, graph: bool | str) -> Row:
    device, patch = settings.device, settings.patch
    options = _options(settings, name)
    torch.manual_seed(0)
    model = create_model(name, in_channels=CHANNELS, out_channels=CLASSES, **options).eval()
    model.deep_supervision = False
    predictor = Predictor(
        model.to(device),
        plan=_plan(patch),
        batch_size=settings.batch,
        amp=amp_on(device, settings.amp),
        cuda_graph=graph,  # type: ignore[arg-type]
    )
    warm = _image(min(settings.side, patch + (_WARM_ROWS - 1) * patch // 2), settings.side)
    predictor.segment(warm)
    busy = _busy(predictor, warm) if device.type == "cuda" else None
    image = _image(settings.side, settings.side)
    counted = _Counted(predictor)
    seconds, host = [], None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    for number in range(settings.rounds):
        counted.sizes.clear()
        began = time.perf_counter()
        if number == 0 and host_memory.why_unknown() is None:
            host, _ = host_memory.peak_bytes(lambda: predictor.segment(image))
        else:
            predictor.segment(image)
        seconds.append(time.perf_counter() - began)
    on_device = None
    if device.type == "cuda":
        on_device = torch.cuda.max_memory_allocated(device) - before
    return Row(
        name,
        graph,
        _flops(name, options, patch) / 1e9,
        sum(size * count for size, count in counted.sizes.items()),
        min(seconds),
        counted.seconds_alone() / min(seconds),
        busy,
        host,
        on_device,
    )


class _Counted(Checked):
    """A predictor's network, which counts its batches by their size."""

    def __init__(self, predictor: Predictor) -> None:
        (member,) = predictor.members
        super().__init__(member.network)
        self.patch = predictor.patch_size
        self.sizes: Counter[int] = Counter()
        member._logits = self

    def __call__(self, windows: Tensor) -> Tensor:
        self.sizes[len(windows)] += 1
        return super().__call__(windows)

    def seconds_alone(self) -> float:
        """Seconds of all batches, from copies on the device, with nothing in between."""
        return sum(count * self._seconds(size) for size, count in self.sizes.items())

    def _seconds(self, size: int) -> float:
        device = self.network.device
        windows = torch.randn(size, CHANNELS, *self.patch, device=device)
        calls = 20 if device.type == "cuda" else 2
        self.network(windows)
        synchronize(device)
        began = time.perf_counter()
        for _ in range(calls):
            self.network(windows)
        synchronize(device)
        return (time.perf_counter() - began) / calls


def _busy(predictor: Predictor, image: RawImage) -> float:
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        began = time.perf_counter()
        predictor.segment(image)
        seconds = time.perf_counter() - began
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in recorded.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith("Memcpy")
    )
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(end - max(start, until), 0.0)
        until = max(until, end)
    return total / 1e6 / seconds


def _image(height: int, width: int) -> RawImage:
    pixels = np.random.default_rng(0).integers(0, 256, (CHANNELS, 1, height, width), np.uint8)
    return RawImage(pixels, (1.0, 1.0, 1.0), (Path("noise"),), None)


def _plan(patch: int) -> Plan:
    labels = {"background": 0, **{f"class {i}": i for i in range(1, CLASSES)}}
    zscore: Scheme = "zscore"
    return Plan(
        dataset="noise",
        channel_names=("R", "G", "B"),
        files_per_image=1,
        labels=labels,
        values=tuple(labels.values()),
        ignore_label=None,
        file_ending=".png",
        normalization=(zscore,) * CHANNELS,
        intensities=(Intensity(0.0, 1.0, 0.0, -1.0, 1.0),) * CHANNELS,
        axis=0,
        spacing=(1.0, 1.0),
        patch_size=(patch, patch),
    )


def _options(settings: Settings, name: str) -> dict[str, Any]:
    """Options of the model; for DynUNet the widths that come nearest to the first one's FLOPs."""
    patch = settings.patch
    if name != DYNUNET:
        return {"dims": (8, 12, 16), "depths": (1, 1, 1)} if settings.tiny else {}
    first = settings.models[0]
    wanted = _flops(first, _options(settings, first), patch) if first != DYNUNET else None

    def options(width: int) -> dict[str, Any]:
        return {"patch_size": (patch, patch), "widths": (width, _WIDEST * width)}

    if wanted is None:
        return options(32)
    # FLOPs grow with the square of the width.
    guess = round(32 * (wanted / _flops(name, options(32), patch)) ** 0.5)
    near = range(max(guess - 1, 1), guess + 2)
    return min((options(w) for w in near), key=lambda o: abs(_flops(name, o, patch) - wanted))


def _flops(name: str, options: dict[str, Any], patch: int) -> float:
    """FLOPs of one window, by the paper's later count."""
    known = {key: value for key, value in options.items() if key != "patch_size"}
    found = summarize(
        name, size=(patch, patch), in_channels=CHANNELS, out_channels=CLASSES, **known
    )
    return found.flops_paper_later
