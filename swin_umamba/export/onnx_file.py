"""Export models as ONNX files for any ONNX runtime."""

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
"""The ONNX opset version of the files."""
_SIZES = ("batch", None, "height", "width")


def export_onnx(
    model: SegmentationModel,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
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


def _forget_tracing(model: onnx_ir.Model) -> None:
    """Remove the exporter's metadata of every node, which includes paths of this machine."""
    graphs = (model.graph, *model.graph.subgraphs())
    noted: list[onnx_ir.Model | onnx_ir.Graph | onnx_ir.Node | onnx_ir.Value]
    noted = [model, *graphs, *model.graph.all_nodes(), *_values(model)]
    for part in noted:
        part.metadata_props.clear()
        part.doc_string = None


def _name_sizes(model: onnx_ir.Model) -> None:
    """Name the dynamic sizes batch, height and width in every shape that uses them."""
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
