"""Export models as ONNX files for any ONNX runtime."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from swin_umamba.common.files import replacing
from swin_umamba.data import Plan
from swin_umamba.export import onnx_graph, onnx_scan
from swin_umamba.export.program import (
    GRAPH_BACKEND,
    MAX_SIDE,
    TRACING,
    VERIFYING,
    Step,
    check,
    for_export,
    no_step,
)
from swin_umamba.inference.facts import INPUT, KEY, OUTPUT, Facts
from swin_umamba.inference.onnx_network import OnnxNetwork
from swin_umamba.models import SegmentationModel

OPSET = 20
"""The ONNX opset version of the files."""


def export_onnx(
    model: SegmentationModel,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    on_step: Step = no_step,
    **use: Any,
) -> float:
    """Write the model as ONNX, opset 20, with one Scan node per scan, whatever the image size.

    Input `image` (batch, in_channels, height, width), output `logits` (batch, out_channels, height,
    width), both float32, with dynamic batch, height and width. The model is exported in eval mode
    without deep supervision. The file's metadata contains `Facts` as JSON under the key
    "swin_umamba"; use: their fields overlap and keep_largest. Requires the packages of the extra
    `export`.

    Returns what `check` finds when comparing the file, run by onnxruntime, with the model; the file
    is written only after that, atomically.
    """
    facts = Facts.of(model, plan, **use)
    on_step(TRACING)
    program = _trace(model)
    on_step("writing operators")
    with _quiet():
        exported = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            custom_translation_table={onnx_scan.OP: onnx_scan.translation},
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert exported is not None  # only without dynamo
    graph = exported.model
    graph.producer_name, graph.producer_version = KEY, facts.version
    onnx_scan.lower_scans(graph)
    onnx_graph.pad_to_tiles(graph.graph, model.stride)
    onnx_graph.clean(graph)
    onnx_graph.name_by_modules(graph)
    graph.metadata_props[KEY] = facts.to_json()
    with replacing(Path(path)) as partial:
        exported.save(partial)
        on_step(VERIFYING)
        return check(OnnxNetwork(partial), model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings, which concern its internals; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Tiles(nn.Module):
    """A model on images of whole tiles: (B, in_channels, rows, stride, columns, stride) to logits.

    All that torch has to relate are then products of rows and columns.
    """

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = for_export(model, GRAPH_BACKEND)
        onnx_scan.use_exported_scans(self.model)

    def forward(self, tiles: Tensor) -> Tensor:
        batch, channels, rows, height, columns, width = tiles.shape
        image = tiles.reshape(batch, channels, rows * height, columns * width)
        return self.model.logits(image)[0]


def _trace(model: SegmentationModel) -> ExportedProgram:
    stride = model.stride
    most = MAX_SIDE // stride
    # An example of no special size: not one image, not square.
    example = torch.zeros(2, model.in_channels, 2, stride, 3, stride)
    dynamic = {0: Dim("batch", max=2**16), 2: Dim("rows", max=most), 4: Dim("columns", max=most)}
    with torch.no_grad():
        return torch.export.export(_Tiles(model), (example,), dynamic_shapes={"tiles": dynamic})
