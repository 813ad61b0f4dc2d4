"""Simplify an ONNX graph written by torch's exporter, and make it readable."""

from __future__ import annotations

import ast
import re
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import Sequential, common
from onnxscript import optimizer

_SCOPES = "pkg.torch.onnx.name_scopes"
_UNLIMITED = 2**62
_MAX_RANK = 6
"""Constants with up to this many numbers, such as shapes, are shared if they are equal."""
_TILES = ("batch", "channels", "rows", "stride", "columns", "stride")


def clean(model: ir.Model) -> None:
    """Fold constants, and drop what is unused or computed twice."""
    common.InlinePass()(model)
    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=_UNLIMITED,
        output_size_limit=_UNLIMITED,
    )
    _merge_transposes(model.graph)
    Sequential(
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(size_limit=_MAX_RANK),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    )(model)


def _merge_transposes(graph: ir.Graph) -> None:
    """Merge two consecutive Transposes into one, or none if the second undoes the first.

    A first one with other uses remains in any case, and the second may be cheap only after it.
    """
    for node in list(graph):
        before = _transpose_before(node)
        if before is None:
            continue
        first, second = _order(before), _order(node)
        source = before.inputs[0]
        assert source is not None
        order = [first[axis] for axis in second]
        if order == sorted(order) and not node.outputs[0].is_graph_output():
            ir.convenience.replace_all_uses_with(node.outputs[0], source)
            graph.remove(node, safe=True)
        elif len(before.outputs[0].uses()) == 1:
            node.replace_input_with(0, source)
            node.attributes["perm"] = ir.AttrInt64s("perm", order)


def _transpose_before(node: ir.Node) -> ir.Node | None:
    """The Transpose whose result a Transpose takes, if there is one."""
    if node.op_type != "Transpose" or node.inputs[0] is None:
        return None
    producer = node.inputs[0].producer()
    return producer if producer is not None and producer.op_type == "Transpose" else None


def _order(transpose: ir.Node) -> list[int]:
    return list(transpose.attributes["perm"].as_ints())


def pad_to_tiles(graph: ir.Graph, stride: int) -> None:
    """Let a graph of whole tiles accept images of any size.

    Its input is (batch, channels, rows, stride, columns, stride), whose first use joins the tiles
    to an image. The new input is that image (batch, channels, height, width), zero-padded at the
    bottom and right, and the output is cropped to the image's size.
    """
    (tiles,) = graph.inputs
    (logits,) = graph.outputs
    assert tiles.shape is not None
    _name_sizes(graph, dict(zip(map(str, tiles.shape), _TILES, strict=True)))
    (joined,) = (node for node in tiles.consumers() if node.op_type == "Reshape")
    image = ir.Value(
        name=tiles.name,
        type=tiles.type,
        shape=ir.Shape(["batch", tiles.shape[1], "height", "width"]),
    )
    graph.inputs[0] = image
    start = _Nodes(graph, "padding")
    size = start.add("Shape", image, start=2, end=4)
    # Rows and columns, rounded up.
    enough = start.add("Add", size, start.ints("stride_minus_1", [stride - 1]))
    count = start.add("Div", enough, start.ints("stride", [stride]))
    whole = start.add("Mul", count, start.ints("stride", [stride]))
    missing = start.add("Sub", whole, size)
    ends = start.add("Concat", start.ints("no_padding", [0, 0]), missing, axis=0)
    padded = start.add("Pad", image, ends, None, start.ints("height_width", [2, 3]))
    for node in list(tiles.consumers()):
        if node.op_type == "Shape":
            axis = node.attributes["start"].as_int()
            if axis == 0:
                node.replace_input_with(0, image)
                continue
            part = {2: [0], 4: [1]}[axis]
            end = [part[0] + 1]
            value = start.add(
                "Slice", count, start.ints(f"from_{part[0]}", part), start.ints(f"to_{end[0]}", end)
            )
            ir.convenience.replace_all_uses_with(node.outputs[0], value)
    padded.type, padded.shape = tiles.type, joined.outputs[0].shape
    ir.convenience.replace_all_uses_with(joined.outputs[0], padded)
    graph.insert_before(graph[0], start.nodes)

    end_nodes = _Nodes(graph, "cropping")
    cut = end_nodes.add(
        "Slice",
        logits,
        end_nodes.ints("no_padding", [0, 0]),
        size,
        end_nodes.ints("height_width", [2, 3]),
    )
    assert logits.shape is not None
    cut.name, cut.type = logits.name, logits.type
    cut.shape = ir.Shape(["batch", logits.shape[1], "height", "width"])
    logits.name = "padded_logits"
    graph.extend(end_nodes.nodes)
    graph.outputs[0] = cut


def _name_sizes(graph: ir.Graph, names: dict[str, str]) -> None:
    """Rename the dynamic sizes in every shape that uses them."""
    names = {old: new for old, new in names.items() if not old.isdecimal()}
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for node in graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = ir.Shape(
                    size if isinstance(size, int) else pattern.sub(lambda m: names[m[0]], str(size))
                    for size in value.shape
                )


class _Nodes:
    """Nodes to add to a graph, named after a module, and the constants that they share."""

    def __init__(self, graph: ir.Graph, module: str) -> None:
        self.graph = graph
        self.scopes = {_SCOPES: repr([f"model.{module}", ""])}
        self.nodes: list[ir.Node] = []

    def add(self, op_type: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        written = ir.convenience.convert_attributes(attributes)
        node = ir.Node("", op_type, inputs, written, metadata_props=dict(self.scopes))
        self.nodes.append(node)
        return node.outputs[0]

    def ints(self, name: str, numbers: list[int]) -> ir.Value:
        if name not in self.graph.initializers:
            self.graph.register_initializer(constant(name, numbers))
        return self.graph.initializers[name]


def constant(name: str, numbers: list[int]) -> ir.Value:
    """A list of 64-bit numbers for a graph's initializers."""
    tensor = ir.tensor(numbers, dtype=ir.DataType.INT64, name=name)
    return ir.Value(
        name=name,
        shape=ir.Shape([len(numbers)]),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def name_by_modules(model: ir.Model) -> None:
    """Name nodes and their results after their module and operation.

    Such as vssm_encoder.layers.0.blocks.0.ln_1/LayerNormalization; parameters have the model's
    names. What torch's exporter records for every node, such as paths of this machine, is dropped.
    """
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    used: Counter[str] = Counter()
    for value in list(model.graph.initializers.values()):
        value.name = _initializer_name(value, used)
    for node in model.graph:
        scope = _scope(node)
        _name(node, scope, used, kept)
        for attribute in node.attributes.values():
            if attribute.type != ir.AttributeType.GRAPH:
                continue
            body = attribute.as_graph()
            for value in body.inputs:
                value.name = _unique(f"{scope}/body/{value.name}", used)
            for inner in body:
                _name(inner, f"{scope}/body", used, kept)
    common.ClearMetadataAndDocStringPass()(model)


def _name(node: ir.Node, scope: str, used: Counter[str], kept: set[int]) -> None:
    """Name a node after its scope, and also its results except those to be kept."""
    node.name = name = _unique("/".join(filter(None, [scope, node.op_type])), used)
    for i, value in enumerate(node.outputs):
        if id(value) not in kept:
            value.name = f"{name}/{i}" if len(node.outputs) > 1 else name


def _scope(node: ir.Node) -> str:
    """The path of a node's module in the model.

    A node written by the optimizer belongs to the module whose result it takes.
    """
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    modules: list[str] = [name for name in scopes[:-1] if name.startswith("model.")]
    if modules:
        return modules[-1].removeprefix("model.")
    producer = None if scopes or node.inputs[0] is None else node.inputs[0].producer()
    return "sizes" if producer is None else _scope(producer)


def _initializer_name(value: ir.Value, used: Counter[str]) -> str:
    """A parameter's own name or, for a value computed from one, the place where it is used."""
    assert value.name is not None
    if value.name.startswith("model."):
        return value.name.removeprefix("model.")
    if value.name.startswith("val_"):
        users = [node for node in value.consumers() if _scope(node)]
        if users and value.dtype == ir.DataType.FLOAT:
            return _unique(f"{_scope(users[0])}/constant", used)
        numbers = value.const_value
        if numbers is not None and numbers.size <= _MAX_RANK:
            listed = "_".join(str(number) for number in numbers.numpy().ravel())
            return _unique(f"constant_{listed}", used)
        return _unique("constant", used)
    return value.name


def _unique(name: str, used: Counter[str]) -> str:
    used[name] += 1
    return name if used[name] == 1 else f"{name}_{used[name] - 1}"
