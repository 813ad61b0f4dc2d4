"""The four-direction scan in ONNX: one node while torch traces it, standard operators in the file.

Each iteration of the file's Scan processes several positions, since a runtime spends more time on
starting a node than on the few numbers of one position. All sizes except channels and states are
dynamic.
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
from torch.fx.experimental.symbolic_shapes import statically_known_true

from swin_umamba.export.onnx_graph import constant
from swin_umamba.models.ss2d import SS2D

DOMAIN = "swin_umamba_export"
_NAME = "ss2d"
_ELEMENTS = 24576
"""Approximate number of values of one iteration's states in one direction: more would exceed a
core's cache."""
_MAX_POSITIONS = 8


@torch.library.custom_op(f"{DOMAIN}::{_NAME}", mutates_args=())
def placeholder(
    x: Tensor, proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, positions: int
) -> Tensor:
    """The scan of x (B, D, H, W) with an `ExportedScan`'s parameters; it is traced, never run."""
    raise NotImplementedError("this op is only for tracing")


@placeholder.register_fake
def _fake(
    x: Tensor, proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, positions: int
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
    attributes=[OpSchema.Attribute("positions", OpSchema.AttrType.INT)],
)
_node = Op(Opset(DOMAIN, 1), _NAME, _schema)


def translation(
    x: Any, proj: Any, dt_proj: Any, dt_bias: Any, A: Any, D: Any, positions: int
) -> Any:
    """The translation of `placeholder` by torch's exporter: a node that `lower_scans` replaces."""
    return _node(x, proj, dt_proj, dt_bias, A, D, positions=positions)


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
        self.register_buffer("A", A.reshape(4, 1, 1, states, inner))
        self.register_buffer("D", layer.Ds.view(4, inner).sum(0))

    def forward(self, x: Tensor, *parameters: Tensor | str) -> Tensor:
        height, width = x.shape[-2:]
        states = self.A.shape[-2] * self.A.shape[-1]
        positions = _MAX_POSITIONS
        while positions > 1 and not (
            positions * states <= _ELEMENTS
            and statically_known_true(height * width % positions == 0)
        ):
            positions //= 2
        out: Tensor = placeholder(
            x, self.proj, self.dt_proj, self.dt_bias, self.A, self.D, positions
        )
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
            y = writer.scan(node.attributes["positions"].as_int())
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

    def reversed(self, value: ir.Value, axis: int) -> ir.Value:
        first, before = self.constant(-1), self.constant(-(2**62))
        return self.one("Slice", value, first, before, self.constant(axis), self.constant(-1))

    def halves(self, value: ir.Value) -> Sequence[ir.Value]:
        return self.many("Split", [value], 2, axis=0, num_outputs=2)

    def scan(self, positions: int) -> ir.Value:
        """y (B, D, H, W)."""
        x, proj, dt_proj, dt_bias, A, D = self.inputs
        R, inner = _sizes(dt_proj)[2:]
        N = _sizes(A)[3]
        # Rows and columns (1, B, H, W, D) and (1, B, W, H, D), then all directions (4, B, L, D).
        image = self.one("Unsqueeze", x, self.constant(0))
        rows = self.one("Transpose", image, perm=[0, 1, 3, 4, 2])
        columns = self.one("Transpose", image, perm=[0, 1, 4, 3, 2])
        forward = [self.reshaped(part, 0, 0, -1, inner) for part in (rows, columns)]
        both = self.one("Concat", *forward, axis=0)
        u = self.one("Concat", both, self.reversed(both, 2), axis=0)
        # A step's inputs, (4, B, L, .) each.
        projected = self.one("MatMul", u, proj)
        sizes = self.constant(R, N, N)
        dt, B, C = self.many("Split", [projected, sizes], 3, axis=3)
        dt = self.one("Softplus", self.one("Add", self.one("MatMul", dt, dt_proj), dt_bias))
        du = self.one("Mul", dt, u)
        inputs = [
            self.reshaped(dt, 0, 0, -1, positions, 1, inner),
            self.reshaped(du, 0, 0, -1, positions, 1, inner),
            self.reshaped(B, 0, 0, -1, positions, N, 1),
            self.reshaped(C, 0, 0, -1, positions, 1, N),
        ]
        batch = self.one("Shape", x, start=0, end=1)
        start_shape = self.one(
            "Concat", self.constant(4), batch, self.constant(1, N, inner), axis=0
        )
        start = self.one("ConstantOfShape", start_shape)
        _, y = self.many(
            "Scan",
            [start, *inputs],
            2,
            body=_body(A, positions, N, inner),
            num_scan_inputs=len(inputs),
            scan_input_axes=[2] * len(inputs),
            scan_output_axes=[2],
        )
        # Back to (B, H, W, D), where the four directions are added.
        y_forward, y_back = self.halves(self.reshaped(y, 0, 0, -1, inner))
        y_rows, y_columns = self.halves(self.one("Add", y_forward, self.reversed(y_back, 2)))
        y_rows = self.one("Reshape", y_rows, self.one("Shape", rows))
        y_columns = self.one("Reshape", y_columns, self.one("Shape", columns))
        y_columns = self.one("Transpose", y_columns, perm=[0, 1, 3, 2, 4])
        merged = self.one("Add", y_rows, y_columns)
        merged = self.one("Add", merged, self.one("Mul", rows, D))
        pixels = self.one("Squeeze", merged, self.constant(0))
        return self.one("Transpose", pixels, perm=[0, 3, 1, 2])


def _body(A: ir.Value, positions: int, N: int, inner: int) -> ir.Graph:
    """h = exp(dt A) h + B du, y = C h for the positions of one iteration, one after another.

    h: (4, B, 1, N, D); dt, du: (4, B, P, 1, D); B: (4, B, P, N, 1); C: (4, B, P, 1, N); the
    results are the last h and y (4, B, P, 1, D).
    """
    tape = Tape()
    shapes = {
        "h": (1, N, inner),
        "dt": (positions, 1, inner),
        "du": (positions, 1, inner),
        "B": (positions, N, 1),
        "C": (positions, 1, N),
    }
    h, dt, du, B, C = inputs = [
        ir.Value(
            name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4, "batch", *shape])
        )
        for name, shape in shapes.items()
    ]
    decay = tape.op("Exp", [tape.op("Mul", [dt, A])])
    added = tape.op("Mul", [B, du])
    if positions == 1:
        h = states = tape.op("Add", [tape.op("Mul", [decay, h]), added])
    else:
        split = {"axis": 2, "num_outputs": positions}
        decays = tape.op_multi_out("Split", [decay], split, num_outputs=positions)
        every = tape.op_multi_out("Split", [added], split, num_outputs=positions)
        steps = []
        for now, new in zip(decays, every, strict=True):
            h = tape.op("Add", [tape.op("Mul", [now, h]), new])
            steps.append(h)
        states = tape.op("Concat", steps, {"axis": 2})
    y = tape.op("MatMul", [C, states])
    for value, (name, shape) in zip(
        (h, y), (("last", shapes["h"]), ("y", shapes["dt"])), strict=True
    ):
        value.name = name
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape([4, "batch", *shape])
    return ir.Graph(inputs, [h, y], nodes=tape.nodes, name="positions")


def _sizes(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [int(size) for size in value.shape.numpy()]
