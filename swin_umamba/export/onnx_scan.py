"""The four-direction scan in ONNX: one node while torch traces it, standard operators in the file.

Each iteration of the file's Scan processes one position, in all four directions. In onnxruntime on
two cores, several positions per iteration were no faster, and exponentials computed for chunks of
positions were at most a quarter faster. Scanning segments of the sequence side by side would occupy
more threads, but corrections for what enters each segment take half of the work again. All sizes
except channels and states are dynamic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnx_ir.tape import Tape
from onnxscript.values import Op, Opset
from torch import Tensor, nn

from swin_umamba.export.onnx_graph import constant
from swin_umamba.models.ss2d import SS2D

DOMAIN = "swin_umamba_export"
_NAME = "ss2d"
_LINEAR = 20.0
"""Above it softplus is its argument, as in PyTorch."""
_REVERSED = (-1, -(2**62), -1)
"""The start, end and step of a Slice that reverses an axis."""


@torch.library.custom_op(f"{DOMAIN}::{_NAME}", mutates_args=())
def placeholder(
    x: Tensor, proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> Tensor:
    """The scan of x (B, D, H, W) with an `ExportedScan`'s parameters; it is traced, never run."""
    raise NotImplementedError("this op is only for tracing")


@placeholder.register_fake
def _fake(
    x: Tensor, proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor
) -> Tensor:
    return torch.empty_like(x)


OP = torch.ops.swin_umamba_export.ss2d.default
_types = ("T", ["tensor(float)"], "float32")
_schema = OpSchema(
    _NAME,
    DOMAIN,
    1,
    inputs=[
        OpSchema.FormalParameter(name, "T")
        for name in ("x", "proj", "dt_proj", "dt_bias", "A", "D")
    ],
    outputs=[OpSchema.FormalParameter("y", "T")],
    type_constraints=[_types],
)
_node = Op(Opset(DOMAIN, 1), _NAME, _schema)


def translation(x: Any, proj: Any, dt_proj: Any, dt_bias: Any, A: Any, D: Any) -> Any:
    """The translation of `placeholder` by torch's exporter: a node that `lower_scans` replaces."""
    return _node(x, proj, dt_proj, dt_bias, A, D)


class ExportedScan(nn.Module):
    """A layer's `Scan` with the layer's parameters in the shapes used by the file."""

    proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor

    def __init__(self, layer: SS2D) -> None:
        super().__init__()
        inner, states = layer.d_inner, layer.d_state
        proj = layer.x_proj_weight.transpose(1, 2).unsqueeze(1)
        A = -layer.A_logs.exp().view(4, inner, states).transpose(1, 2)
        self.register_buffer("proj", proj.contiguous())  # (4, 1, D, R + 2N)
        dt_proj = layer.dt_projs_weight.transpose(1, 2).unsqueeze(1)
        self.register_buffer("dt_proj", dt_proj.contiguous())  # (4, 1, R, D)
        self.register_buffer("dt_bias", layer.dt_projs_bias.view(4, 1, 1, inner))
        self.register_buffer("A", A.reshape(4, 1, states, inner))
        self.register_buffer("D", layer.Ds.view(4, inner).sum(0))

    def forward(self, x: Tensor, *parameters: Tensor | str) -> Tensor:
        out: Tensor = placeholder(x, self.proj, self.dt_proj, self.dt_bias, self.A, self.D)
        return out


def use_exported_scans(model: nn.Module) -> None:
    """Replace the scan of every SS2D layer, in place."""
    for module in model.modules():
        if isinstance(module, SS2D):
            module.register_module("scan", ExportedScan(module))


def lower_scans(model: ir.Model) -> None:
    """Replace every such node by standard operators."""
    for node in list(model.graph):
        if (node.domain, node.op_type) == (DOMAIN, _NAME):
            writer = _Writer(model.graph, node)
            y = writer.scan()
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], writer.nodes, node.outputs, [y]
            )
    model.graph.opset_imports.pop(DOMAIN, None)


class _Writer:
    """The operators that replace one placeholder; shapes in comments are those in torch."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph, self.node = graph, node
        self.inputs = [value for value in node.inputs if value is not None]
        self.nodes: list[ir.Node] = []

    def many(
        self, op_type: str, inputs: Sequence[ir.Value], count: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node; returns its outputs."""
        made = ir.Node(
            "",
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            num_outputs=count,
            metadata_props=dict(self.node.metadata_props),
        )
        self.nodes.append(made)
        return made.outputs

    def one(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Append a node with one output, and return it."""
        return self.many(op_type, inputs, 1, **attributes)[0]

    def constant(self, *numbers: int) -> ir.Value:
        """A list of numbers as a named constant of the graph."""
        name = "_".join(["ints", *map(str, numbers)])
        if name not in self.graph.initializers:
            self.graph.register_initializer(constant(name, list(numbers)))
        return self.graph.initializers[name]

    def reshaped(self, value: ir.Value, *shape: int) -> ir.Value:
        """0 keeps a size."""
        return self.one("Reshape", value, self.constant(*shape))

    def sliced(self, value: ir.Value, axes: dict[int, tuple[int, int, int]]) -> ir.Value:
        """axes: start, end and step by axis."""
        starts, ends, steps = (
            self.constant(*numbers) for numbers in zip(*axes.values(), strict=True)
        )
        return self.one("Slice", value, starts, ends, self.constant(*axes), steps)

    def number(self, value: float) -> ir.Value:
        name = f"float_{value:g}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(value, dtype=ir.DataType.FLOAT, name=name)
            kind, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            made = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
            self.graph.register_initializer(made)
        return self.graph.initializers[name]

    def softplus(self, x: ir.Value) -> ir.Value:
        """log(1 + exp(x)); onnxruntime's own operator takes ten times as long."""
        power = self.one("Exp", self.one("Min", x, self.number(_LINEAR)))
        return self.one("Max", x, self.one("Log", self.one("Add", power, self.number(1.0))))

    def scan(self) -> ir.Value:
        """y (B, D, H, W)."""
        x, proj, dt_proj, dt_bias, A, D = self.inputs
        R, inner = _sizes(dt_proj)[2:]
        N = _sizes(A)[2]
        # Rows and columns (1, B, H, W, D) and (1, B, W, H, D), then all directions (4, B, L, D).
        image = self.one("Unsqueeze", x, self.constant(0))
        rows = self.one("Transpose", image, perm=[0, 1, 3, 4, 2])
        columns = self.one("Transpose", rows, perm=[0, 1, 3, 2, 4])  # pixels stay contiguous
        forward = [self.reshaped(part, 0, 0, -1, inner) for part in (rows, columns)]
        both = self.one("Concat", *forward, axis=0)
        u = self.one("Concat", both, self.sliced(both, {2: _REVERSED}), axis=0)
        # A step's inputs, (4, B, L, .) each.
        projected = self.one("MatMul", u, proj)
        sizes = self.constant(R, N, N)
        dt, B, C = self.many("Split", [projected, sizes], 3, axis=3)
        dt = self.softplus(self.one("Add", self.one("MatMul", dt, dt_proj), dt_bias))
        du = self.one("Mul", dt, u)
        inputs = [
            self.reshaped(dt, 0, 0, -1, 1, inner),
            self.reshaped(du, 0, 0, -1, 1, inner),
            self.reshaped(B, 0, 0, -1, N, 1),
            self.reshaped(C, 0, 0, -1, 1, N),
        ]
        batch = self.one("Shape", x, start=0, end=1)
        start_shape = self.one("Concat", self.constant(4), batch, self.constant(N, inner), axis=0)
        start = self.one("ConstantOfShape", start_shape)
        _, y = self.many(
            "Scan",
            [start, *inputs],
            2,
            body=_body(A, N, inner),
            num_scan_inputs=len(inputs),
            scan_input_axes=[2] * len(inputs),
            scan_output_axes=[2],
        )
        # Back to (B, H, W, D), where the four directions are added.
        y = self.reshaped(y, 0, 0, -1, inner)
        y_forward = self.sliced(y, {0: (0, 2, 1)})
        y_back = self.sliced(y, {0: (2, 4, 1), 2: _REVERSED})
        y_rows, y_columns = self.many(
            "Split", [self.one("Add", y_forward, y_back)], 2, axis=0, num_outputs=2
        )
        y_rows = self.one("Reshape", y_rows, self.one("Shape", rows))
        y_columns = self.one("Reshape", y_columns, self.one("Shape", columns))
        y_columns = self.one("Transpose", y_columns, perm=[0, 1, 3, 2, 4])
        merged = self.one("Add", y_rows, y_columns)
        merged = self.one("Add", merged, self.one("Mul", rows, D))
        pixels = self.one("Squeeze", merged, self.constant(0))
        return self.one("Transpose", pixels, perm=[0, 3, 1, 2])


def _body(A: ir.Value, N: int, inner: int) -> ir.Graph:
    """h = exp(dt A) h + B du, y = C h for one position.

    h: (4, B, N, D); dt, du, y: (4, B, 1, D); B: (4, B, N, 1); C: (4, B, 1, N); A: (4, 1, N, D).
    """
    tape = Tape()
    shapes = {"h": (N, inner), "dt": (1, inner), "du": (1, inner), "B": (N, 1), "C": (1, N)}
    h, dt, du, B, C = inputs = [_typed(name, shape) for name, shape in shapes.items()]
    decayed = tape.op("Mul", [tape.op("Exp", [tape.op("Mul", [dt, A])]), h])
    last, y = _typed("last", shapes["h"]), _typed("y", shapes["dt"])
    tape.op("Add", [decayed, tape.op("Mul", [B, du])], output=last)
    tape.op("MatMul", [C, last], output=y)
    return ir.Graph(inputs, [last, y], nodes=tape.nodes, name="position")


def _typed(name: str, shape: tuple[int, int]) -> ir.Value:
    """A value (4, B, *shape) of the body."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    return ir.Value(name=name, type=kind, shape=ir.Shape([4, "batch", *shape]))


def _sizes(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [int(size) for size in value.shape.numpy()]
