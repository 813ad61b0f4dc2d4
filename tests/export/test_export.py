"""Exported files compute the same as their models, at every size, and describe their use."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from made_once import made_once
from model_cases import build, model_cases
from PIL import Image
from typer.testing import CliRunner

import swin_umamba_ops
from swin_umamba import model_names
from swin_umamba.cli import app
from swin_umamba.data import Intensity, Plan, read_raw
from swin_umamba.errors import UserError
from swin_umamba.export import program
from swin_umamba.export.onnx_file import OPSET, export_onnx
from swin_umamba.export.onnx_predictor import OnnxPredictor
from swin_umamba.export.program import DiffersError, check, min_side
from swin_umamba.export.torch_file import export_aot, export_pt2
from swin_umamba.inference.facts import KEY, Facts
from swin_umamba.inference.onnx_network import OnnxNetwork
from swin_umamba.models import SegmentationModel
from swin_umamba.models.ss2d import SS2D
from swin_umamba.weights import save_weights

onnx = pytest.importorskip("onnx")

PLAN = Plan(
    dataset="squares",
    channel_names=("red", "green"),
    files_per_image=1,
    labels={"background": 0, "square": 1, "edge": 2},
    values=(0, 1, 7),
    ignore_label=None,
    file_ending=".tif",
    normalization=("zscore", "zscore"),
    intensities=(Intensity(0.0, 1.0, 0.0, -1.0, 1.0),) * 2,
    axis=0,
    spacing=(1.0, 1.0),
    patch_size=(32, 32),
)


def _model(name: str) -> SegmentationModel:
    torch.manual_seed(0)
    options = {"decoder_depths": (1,)} if name.startswith("swin_umamba_d") else {}
    sizes = {"dims": (8, 12), "depths": (1, 1), "d_state": 4}
    model = build(name, in_channels=2, out_channels=3, **sizes, **options)
    model.deep_supervision = False
    return model.eval()


class Exported(NamedTuple):
    model: SegmentationModel
    path: Path


@pytest.fixture(scope="session", params=model_cases())
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = _model(request.param)

    def export(folder: Path) -> None:
        assert export_onnx(model, folder / "model.onnx", plan=PLAN) <= 1e-4

    folder = made_once(tmp_path_factory, f"onnx_{request.param}", export)
    return Exported(model, folder / "model.onnx")


@pytest.mark.slow
def test_onnx_logits_at_every_size(exported: Exported) -> None:
    network = OnnxNetwork(exported.path, threads=2)  # the images of a batch in two parts
    for shape in ((1, 2, 40, 56), (3, 2, 33, 17), (1, 2, 1, 1)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = exported.model(x)
        found = network(x)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-4
    with pytest.raises(ValueError, match="threads: got 0, expected at least 1"):
        OnnxNetwork(exported.path, threads=0)


@pytest.mark.slow
def test_onnx_graph_and_metadata(exported: Exported) -> None:
    graph = onnx.load(exported.path)
    onnx.checker.check_model(graph)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    used = exported.model.vssm_encoder.layers[: getattr(exported.model, "used_stages", None)]
    scans = sum(isinstance(m, SS2D) for m in used.modules())
    scans += sum(isinstance(m, SS2D) for m in getattr(exported.model, "decoder", used).modules())
    if not hasattr(exported.model, "decoder"):
        scans //= 2
    assert [node.op_type for node in graph.graph.node].count("Scan") == scans
    (image,) = graph.graph.input
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [
        "batch",
        2,
        "height",
        "width",
    ]
    nodes = [node.name for node in graph.graph.node]
    assert len(set(nodes)) == len(nodes)
    scan = re.compile(r"vssm_encoder\.layers\.0\.\S+\.scan/Scan")
    assert any(scan.fullmatch(name) for name in nodes)
    assert all("/" in name for name in nodes)
    parameters = {name for name, _ in exported.model.named_parameters()}
    weights = {tensor.name for tensor in graph.graph.initializer}
    assert len(parameters & weights) > 20
    assert not {name for name in weights if name.startswith(("model.", "val_"))}
    content = exported.path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content
    facts = OnnxNetwork(exported.path).facts
    assert (facts.in_channels, facts.out_channels, facts.plan) == (2, 3, PLAN)
    assert facts.model in model_names()


@pytest.mark.slow
def test_onnx_has_no_node_in_vain(exported: Exported) -> None:
    """None that another undoes, that works on constants alone, or whose results nothing uses."""
    graph = onnx.load(exported.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    used = {*uses, "logits"}
    for node in graph.node:
        for attribute in node.attribute:
            used |= {name for inner in attribute.g.node for name in inner.input}
    for node in graph.node:
        before = producers.get(node.input[0])
        if before is not None and node.op_type == before.op_type == "Transpose":
            assert uses[before.output[0]] > 1, node.name
        assert not set(node.input) <= constants, node.name
        assert used & set(node.output), node.name
        assert node.op_type not in ("Identity", "Cast", "CastLike", "Constant"), node.name
    assert constants <= used


@pytest.mark.slow
def test_an_onnx_file_alone_segments_images(exported: Exported, tmp_path: Path) -> None:
    predictor = OnnxPredictor(exported.path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(tmp_path / "image.png")
    raw = read_raw(tmp_path / "image.png")
    raw = dataclasses.replace(raw, pixels=np.concatenate([raw.pixels, raw.pixels[:, :, ::-1]]))
    with torch.no_grad():
        logits = exported.model(torch.from_numpy(PLAN.preprocess(raw)))
    labels = predictor(raw)
    assert labels.shape == (1, 32, 32)
    # One window: nothing to average with.
    assert (labels == logits.argmax(1).numpy()).mean() > 0.99
    assert len(np.unique(labels)) > 1


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="no ONNX file"):
        OnnxNetwork(path)
    for content in (b"", b"hello", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as ONNX"):
            OnnxNetwork(path)
    size = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1])
    copy = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["image"], ["logits"])
    graph = onnx.helper.make_graph([node], "foreign", [size], [copy])
    opset = onnx.helper.make_opsetid("", OPSET)
    foreign = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(foreign, path)
    with pytest.raises(UserError, match="not written by swin-umamba export"):
        OnnxNetwork(path)
    onnx.helper.set_model_props(foreign, {KEY: '{"model": "swin_umamba"}'})
    onnx.save(foreign, path)
    with pytest.raises(UserError, match="damaged metadata"):
        OnnxNetwork(path)


def test_facts_survive_json() -> None:
    facts = Facts.of(_model("swin_umamba_v1"), PLAN, min_side=9)
    assert Facts.from_json(facts.to_json()) == facts
    without = dataclasses.replace(facts, plan=None)
    assert Facts.from_json(without.to_json()) == without
    with pytest.raises(ValueError, match="in_channels 3, expected the model's 2"):
        Facts.of(
            _model("swin_umamba_v1"),
            dataclasses.replace(
                PLAN,
                channel_names=("a", "b", "c"),
                normalization=("zscore",) * 3,
                intensities=PLAN.intensities[:1] * 3,
            ),
        )


def test_a_wrong_network_is_refused() -> None:
    model = _model("swin_umamba_v1")
    assert check(model, model) == 0
    for wrong in (lambda x: model(x) + 1e-3 * model(x).abs().max(), lambda x: model(x) * np.nan):
        with pytest.raises(DiffersError, match="nothing was written"):
            check(wrong, model)


@pytest.mark.slow
def test_a_wrong_export_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "TOLERANCE", -1.0)
    save_weights(_model("swin_umamba_v1"), tmp_path / "weights.safetensors")
    path = tmp_path / "model.pt2"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "weights.safetensors"), str(path)])
    assert done.exit_code == 1
    assert "nothing was written" in " ".join(done.output.split())
    assert isinstance(done.exception, SystemExit)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["export", "pytorch"])
def test_pt2_runs_from_its_file(backend: str, tmp_path: Path) -> None:
    model = _model("swin_umamba_v1")
    weights, path = tmp_path / "weights.safetensors", tmp_path / "model.pt2"
    save_weights(model, weights)
    options = [] if backend == "export" else ["--backend", backend]
    done = CliRunner().invoke(app, ["export", str(weights), str(path), *options])
    assert done.exit_code == 0, done.output
    said = {KEY: ""}
    program = torch.export.load(path, extra_files=said)
    ours = any(str(n.target).startswith("swin_umamba") for n in program.graph.nodes)
    assert ours == (backend != "export")
    assert Facts.from_json(said[KEY]) == Facts.of(model, None, min_side=min_side(model))
    x = torch.randn(2, 2, 40, 27, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_aot_package_runs_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("swin_umamba_v1")
    path = tmp_path / "model.pt2"
    # The code need not be fast: without optimization, vectors and headers compiled for the next.
    monkeypatch.setenv("TORCHINDUCTOR_DEBUG_COMPILE", "1")
    quick = {"cpp.simdlen": 1, "aot_inductor.precompile_headers": False}
    with torch._inductor.config.patch(quick):
        assert export_aot(model, path, plan=PLAN) <= 1e-4
    package = torch._inductor.aoti_load_package(str(path))
    assert Facts.from_json(package.get_metadata()[KEY]).plan == PLAN


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swin_umamba_ops, "available_backends", lambda: {"broken": "why"})
    model = _model("swin_umamba_v1")
    with pytest.raises(ValueError, match="backend: got 'export'"):
        export_aot(model, tmp_path / "model.pt2", backend="export")
    with pytest.raises(ValueError, match="device: got cuda"):
        export_pt2(model, tmp_path / "model.pt2", device="cuda")
    for words, reason in (
        (["missing", "model.onnx"], "cannot export missing"),
        (["missing", "model.txt"], "expected an ending"),
        (["missing", "model.pt2", "--format", "onnx"], "expected a file name for onnx"),
        (["missing", "model.onnx", "--backend", "cpu"], "not to ONNX"),
        (["missing", "model.pt2", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["missing", "model.pt2", "--backend", "broken"], "backend 'broken' cannot be used: why"),
    ):
        done = CliRunner().invoke(app, ["export", *words])
        assert done.exit_code == 1
        assert reason in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())
