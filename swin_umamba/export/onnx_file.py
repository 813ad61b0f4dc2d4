"""Models as ONNX files, which any runtime of that standard can run."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from swin_umamba.common.files import replacing
from swin_umamba.data import Plan
from swin_umamba.export.program import check, trace
from swin_umamba.inference.facts import INPUT, KEY, OUTPUT, Facts
from swin_umamba.inference.onnx_network import OnnxNetwork
from swin_umamba.models import SegmentationModel

if TYPE_CHECKING:
    import onnx_ir

OPSET = 20
"""The version of ONNX's operators that files are written in."""
_SIZES = ("batch", None, "height", "width")


def export_onnx(
    model: SegmentationModel,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    **use: Any,
) -> float:
    """Write the model as ONNX, opset 20; each of its scans is one Scan, whatever the image's size.

    Input `image` (batch, in_channels, height, width), output `logits` (batch, out_channels, height,
    width), both float32, with three free sizes from 1 upwards. The model is written as in
    evaluation, without deep supervision. The file holds `Facts` as JSON under the key "swin_umamba"
    of its metadata; use: overlap and keep_largest, as there. Needs the packages of the extra
    `export`.

    Returns what `check` finds between the file, run by onnxruntime, and the model; the file is
    written whole, after that, or not at all.
    """
    facts = Facts.of(model, plan, **use)
    program = trace(model)
    with _quiet():
        exported = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # only without dynamo
    exported.model.producer_name, exported.model.producer_version = KEY, facts.version
    _forget_tracing(exported.model)
    _name_sizes(exported.model)
    exported.model.metadata_props[KEY] = facts.to_json()
    with replacing(Path(path)) as partial:
        exported.save(partial)
        return check(OnnxNetwork(partial), model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are of its own insides; errors are raised or told."""
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


def _forget_tracing(model: onnx_ir.Model) -> None:
    """Drop what the exporter notes of every node: among it, paths of this machine."""
    graphs = (model.graph, *model.graph.subgraphs())
    noted: list[onnx_ir.Model | onnx_ir.Graph | onnx_ir.Node | onnx_ir.Value]
    noted = [model, *graphs, *model.graph.all_nodes(), *_values(model)]
    for part in noted:
        part.metadata_props.clear()
        part.doc_string = None


def _name_sizes(model: onnx_ir.Model) -> None:
    """Call the free sizes batch, height and width in every shape that mentions them."""
    (image,) = model.graph.inputs
    assert image.shape is not None
    names = {str(size): name for size, name in zip(image.shape, _SIZES, strict=True) if name}
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in list(_values(model)):
        if value.shape is not None:
            value.shape = type(value.shape)(
                size if isinstance(size, int) else pattern.sub(lambda m: names[m[0]], str(size))
                for size in value.shape
            )


def _values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs
