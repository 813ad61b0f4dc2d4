"""Images much larger than a window: bounded memory, each row read once, prefetched for a GPU."""

from __future__ import annotations

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predict_helpers import Nearest, plan_of
from torch import Tensor

from swin_umamba import Predictor, create_model
from swin_umamba.data.io.raw import RawImage
from swin_umamba.data.prepare import pieces
from swin_umamba.data.prepare.slices import ArraySlices, Floats
from swin_umamba.inference import arriving
from swin_umamba.inference.strips import _write, strips
from swin_umamba.inference.windows import ON_CPU, windows_at_once

CPU = torch.device("cpu")


class Counted(ArraySlices):
    """Slices that record which rows are read."""

    def __init__(self, array: Floats) -> None:
        super().__init__(array)
        self.rows: list[int] = []

    def fill(self, out: Floats, row: int) -> None:
        self.rows += range(row, row + out.shape[2])
        super().fill(out, row)


def _strips_are_the_rows(device: torch.device) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 40, 7)).astype(np.float32)
    slices = Counted(images)
    spans = [(0, 16), (8, 24), (24, 32), (30, 40)]
    for (begin, end), strip in zip(spans, strips(slices, spans, device), strict=True):
        assert strip.device.type == device.type
        np.testing.assert_array_equal(strip.cpu(), images[:, :, begin:end])
    assert sorted(slices.rows) == list(range(40))


def test_every_row_is_read_once() -> None:
    _strips_are_the_rows(CPU)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_several_threads_write_a_strip(rows: int) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, 40, 7)).astype(np.float32)
    slices, out = Counted(images), np.full((2, 3, rows, 7), np.nan, np.float32)
    with ThreadPoolExecutor(2) as pool:
        _write(slices, out, 5, pool)
    np.testing.assert_array_equal(out, images[:, :, 5 : 5 + rows])
    assert sorted(slices.rows) == list(range(5, 5 + rows))


@pytest.mark.gpu
def test_every_row_is_read_once_ahead_of_a_gpu() -> None:
    _strips_are_the_rows(torch.device("cuda"))


@pytest.mark.gpu
def test_an_error_in_reading_ahead_is_raised() -> None:
    class Broken(Counted):
        def fill(self, out: Floats, row: int) -> None:
            if row >= 16:
                raise OSError("the file is gone")
            super().fill(out, row)

    slices = Broken(np.zeros((1, 1, 40, 7), np.float32))
    with pytest.raises(OSError, match="the file is gone"):
        list(strips(slices, [(0, 16), (8, 24), (24, 40)], torch.device("cuda")))


@pytest.mark.parametrize("order", [None, (2, 1, 3)])
def test_decisions_where_the_logits_lie_are_the_plan_s(order: tuple[int, ...] | None) -> None:
    changes: dict[str, Any] = {}
    if order is not None:
        changes = {
            "regions": ((1, 2, 3), (2,), (3,)),
            "region_names": ("a", "b", "c"),
            "regions_class_order": order,
        }
    plan = plan_of(4, **changes)
    shape = (2, plan.num_outputs, 9, 5)
    probabilities = np.random.default_rng(1).integers(0, 5, shape).astype(np.float32) / 4
    found = plan.decide_tensor(torch.from_numpy(probabilities), axis=1)
    np.testing.assert_array_equal(found, plan.decide(probabilities, axis=1))


def test_memory_holds_the_image_and_its_mask_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its floats, four times as large, nor the classes' probabilities."""
    monkeypatch.setattr(pieces, "AT_ONCE", 1 << 14)
    height, width, classes = 6000, 128, 6
    plan = plan_of(classes, normalization=("rescale_to_0_1",), crop_to_nonzero=True)
    pixels = np.random.default_rng(0).integers(1, classes, (1, 1, height, width), np.uint8)
    pixels[:, :, :, -10:] = 0
    raw = RawImage(pixels, (1.0, 1.0, 1.0), (Path("x.png"),), None)
    predictor = Predictor(Nearest(classes, step=1 / (classes - 1)), plan=plan)
    mask = pixels.size
    gc.collect()
    tracemalloc.start()
    try:
        labels = predictor.segment(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert labels.dtype == np.uint8
    assert (labels[..., -10:] == 0).all()
    assert len(np.unique(labels)) == classes - 1
    assert peak < 2.5 * mask  # beside it a byte for each pixel, of whether it is zero
    np.testing.assert_array_equal(labels, predictor.segment(raw, _kept(plan.num_outputs, labels)))


def _kept(outputs: int, labels: np.ndarray) -> Floats:
    return np.zeros((outputs, *labels.shape), np.float32)


def test_a_band_is_waited_for_when_the_next_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    class Spied(arriving.ToHost):
        def read(self) -> tuple[Tensor, ...]:
            events.append("read")
            return super().read()

    monkeypatch.setattr(arriving, "ToHost", Spied)

    def bands() -> Any:
        for row in range(3):
            events.append("asked")
            yield row, torch.full((1, 2, 1, 4), float(row))

    found = list(arriving.on_host(bands(), lambda logits: logits.argmax(1), "x"))
    assert [row for row, _ in found] == [0, 1, 2]
    assert events == ["asked", "asked", "read", "asked", "read", "read"]


def test_a_gpu_takes_more_windows_at_a_time() -> None:
    gpu = torch.device("cuda")
    assert windows_at_once((320, 320), CPU) == ON_CPU
    assert windows_at_once((320, 320), gpu) == 16
    assert windows_at_once((512, 640), gpu) == 5
    assert windows_at_once((4096, 4096), gpu) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_gpu_segments_a_large_image_as_a_cpu_does(
    amp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"dims": (8, 16), "depths": (1, 1), "d_state": 4}
    model = create_model("swin_umamba_d", in_channels=3, out_channels=4, **sizes).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 700, 300), np.uint8)
    raw = RawImage(pixels, (1.0, 1.0, 1.0), (Path("x.png"),), None)
    plan = plan_of(4, 3, normalization=("zscore",) * 3, patch_size=(64, 64))
    expected = Predictor(model, plan=plan).segment(raw)
    predictor = Predictor(model.cuda(), plan=plan, amp=amp, batch_size=4)
    for _ in range(2):
        actual = predictor.segment(raw)
        assert actual.dtype == expected.dtype
        assert (actual != expected).mean() < (1e-3 if amp == "off" else 0.1)
