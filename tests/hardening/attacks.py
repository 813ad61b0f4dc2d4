"""Attacks on everything the package reads: each changes something at random and checks the outcome.

An attack returns whether the package was right (it read correct content, or the changed content is
still valid) or refused with a message for the user. Any other exception is a fault of the package.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from image_files import FILES

import swin_umamba_ops as ops
from swin_umamba.common.names import check_case_name, file_name
from swin_umamba.data import read_raw
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Predictor
from swin_umamba.models.loading import load_model
from swin_umamba.runs.checkpoints import Checkpoints
from swin_umamba.runs.run import Run
from swin_umamba.runs.state import require_standing
from swin_umamba.weights import read_checkpoint

RIGHT, REFUSED = "right", "refused"
Attack = Callable[[random.Random, Path, Path], str]
"""Of a generator, the folder of an intact run, and an empty folder to work in."""

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-308, "", "x",
    "../../x", "\x00", "\ud800", "0" * 5000, [], {}, [[]], [None], {"": 0}, {"a": {"b": []}},
)  # fmt: skip
ODD_TEXTS = ("", "null", "[]", "{", "\ufeff{}", "NaN", '{"a": 1e999}', "[" * 2000, "\x00" * 9)


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one unexpected thing somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        other = dict(value)
        way = rng.random()
        if way < 0.15:
            del other[key]
        elif way < 0.25:
            other[rng.choice(("", "extra", key.upper(), "\ud800"))] = rng.choice(ODD_VALUES)
        else:
            other[key] = changed(value[key], rng)
        return other
    if isinstance(value, list) and value and rng.random() < 0.85:
        at, other = rng.randrange(len(value)), list(value)
        way = rng.random()
        if way < 0.2:
            del other[at]
        elif way < 0.3:
            other *= 2
        else:
            other[at] = changed(value[at], rng)
        return other
    return rng.choice(ODD_VALUES)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Truncated bytes, or bytes changed in a few places, mostly near the start."""
    if not content or rng.random() < 0.2:
        return content[: rng.randrange(len(content) + 1)]
    altered = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        end = min(len(content), 400) if rng.random() < 0.7 else len(content)
        altered[rng.randrange(end)] = rng.randrange(256)
    return bytes(altered)


def _edit_json(path: Path, rng: random.Random) -> None:
    way = rng.random()
    if way < 0.1:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif way < 0.2:
        path.write_bytes(rng.choice(ODD_TEXTS).encode("utf-8", "surrogatepass"))
    else:
        text = json.dumps(changed(json.loads(path.read_text()), rng))
        coding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"))
        path.write_bytes(text.encode(coding))


def _read_run(folder: Path) -> None:
    run = Run.open(folder)
    for read in (lambda: run.plan, lambda: run.split, lambda: run.environment, run.log):
        read()
    Predictor.from_run(folder, device="cpu")


def _told(
    act: Callable[[], object],
    *named: str,
    kinds: tuple[type[Exception], ...] = (UserError, ValueError),
) -> str:
    """How an action ends; a refusal must name one of these and be only a few lines long."""
    try:
        act()
    except kinds as error:
        message = str(error)
        if not any(name in message for name in named) or message.count("\n") > 20:
            raise AssertionError(f"the message does not name {named}: {message!r}") from error
        return REFUSED
    return RIGHT


def run_json(name: str, rng: random.Random, run: Path, work: Path) -> str:
    """config.json, plan.json, ... of a run, with one unexpected thing in it."""
    folder = work / "run"
    shutil.copytree(run, folder)
    _edit_json(folder / name, rng)
    return _told(partial(_read_run, folder), name, str(folder))


def run_log(rng: random.Random, run: Path, work: Path) -> str:
    folder = work / "run"
    shutil.copytree(run, folder)
    lines = (folder / "log.jsonl").read_text().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(changed(json.loads(lines[at]), rng))
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    (folder / "log.jsonl").write_bytes(damaged(content, rng) if rng.random() < 0.3 else content)
    return _told(Run.open(folder).log, "log.jsonl")


def _changed_state(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value:
        other, key = dict(value), rng.choice(list(value))
        if rng.random() < 0.2:
            del other[key]
        else:
            other[key] = _changed_state(value[key], rng)
        return other
    if isinstance(value, torch.Tensor) and rng.random() < 0.5:
        return rng.choice((value.new_zeros(0), value.new_zeros(3, 3), value.double(), value * 0))
    odd = [v for v in ODD_VALUES if v != "\ud800"]
    return rng.choice([*odd, torch.zeros(2), (1, 2)])


def run_state(rng: random.Random, run: Path, work: Path) -> str:
    """state.pt, from which training resumes."""
    folder = work / "run"
    shutil.copytree(run, folder)
    path = folder / "state.pt"
    if rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
    else:
        state = torch.load(path, weights_only=True)
        torch.save(_changed_state(copy.deepcopy(state), rng), path)

    def load() -> None:
        checkpoints = Checkpoints(folder)
        checkpoints.settle()
        state = checkpoints.load()
        if state is not None:
            require_standing(state, folder)

    return _told(load, "state.pt", "safetensors", str(folder))


def weights(rng: random.Random, run: Path, work: Path) -> str:
    """Weights files, ours and torch's, with changed bytes."""
    ours = rng.random() < 0.5
    path = work / ("w.safetensors" if ours else "w.pth")
    if ours:
        shutil.copy(run / "model.safetensors", path)
    else:
        tensors = {"a": torch.arange(12.0).view(3, 4), "b": {"c": torch.ones(2)}}
        legacy = rng.random() < 0.3
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(damaged(path.read_bytes(), rng))
    return _told(partial(load_model if ours else read_checkpoint, path), path.name)


class _Calls:
    """Calls a function when unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def pickles(rng: random.Random, run: Path, work: Path) -> str:
    """Checkpoints that would run code, among harmless ones: no code may run."""
    mark, path = work / "executed", work / "w.pth"
    code = f"open({str(mark)!r}, 'w').close()"
    payload: Any = rng.choice((
        _Calls(os.system, f"touch {mark}"),
        _Calls(exec, code),
        _Calls(eval, code),
        _Calls(subprocess.getoutput, f"touch {mark}"),
        _Calls(Path.touch, mark),
        _Calls(getattr, _Calls(__import__, "os"), "system"),
        _Calls(torch.load, str(run / "state.pt")),
        _Calls(torch.hub.load_state_dict_from_url, "http://localhost:1/x"),
        OrderedDict(a=1), torch.zeros(2), [1, "x"],
    ))  # fmt: skip
    for _ in range(rng.randrange(3)):
        payload = rng.choice(([payload], {"a": payload}, (payload, 1), OrderedDict(x=payload)))
    content = {"state_dict": {"w": torch.ones(2)}, rng.choice(("optimizer", "epoch", "")): payload}
    options = {"pickle_protocol": rng.choice((2, 3, 4, 5))}
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.6, **options)
    if rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
    outcome = _told(partial(read_checkpoint, path), path.name)
    assert not mark.exists(), "the file ran code"
    return outcome


def case_names(rng: random.Random, run: Path, work: Path) -> str:
    """Case names: refused, or usable as one component of a path."""
    letters = (
        "a",
        "é",
        "e\u0301",
        "/",
        "\\",
        ".",
        "..",
        "\x00",
        "\n",
        " ",
        "~",
        "漢",
        "\udcff",
        "-",
    )
    name = "".join(rng.choice(letters) for _ in range(rng.choice((1, 2, 3, 9, 80, 260))))
    if _told(partial(check_case_name, name, "dataset.json"), "dataset.json") == REFUSED:
        return REFUSED
    path = work / file_name(name, ".png")
    assert path.parent == work
    assert path.resolve().is_relative_to(work.resolve())
    path.write_bytes(b"")
    return RIGHT


def op_calls(rng: random.Random, run: Path, work: Path) -> str:
    """Calls of the scan with valid and invalid shapes and dtypes."""
    B, D, H, W, N, R = (rng.choice((0, 1, 1, 2, 3)), *(rng.choice((1, 2, 5)) for _ in range(5)))
    shapes = [(B, D, H, W), (4, R + 2 * N, D), (4, D, R), (4, D), (4 * D, N), (4 * D,)]
    dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.bfloat16))
    at = rng.randrange(len(shapes))
    fits = rng.random() < 0.4
    if not fits:
        shape = list(shapes[at])
        way = rng.random()
        if way < 0.4:
            shape[rng.randrange(len(shape))] += rng.choice((1, 2, 7))
        elif way < 0.7:
            shape.append(1)
        else:
            del shape[rng.randrange(len(shape))]
        shapes[at] = tuple(shape)
    seed = torch.Generator().manual_seed(rng.randrange(2**31))
    tensors = [torch.randn(shape, generator=seed, dtype=torch.float64) for shape in shapes]
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = [t.to(parameters if i else dtype) for i, t in enumerate(tensors)]
    names = ("x", "x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
    if _told(partial(ops.ss2d, *tensors), *names, kinds=(TypeError, ValueError)) == REFUSED:
        assert not fits
        return REFUSED
    y = ops.ss2d(*tensors)
    expected = ops.ss2d(*(t.double() for t in tensors), backend="reference")
    assert y.shape == tensors[0].shape
    bound = 0.1 if dtype == torch.bfloat16 else 1e-4
    assert (y.double() - expected).norm() <= bound * (expected.norm() + 1)
    return RIGHT


def images(rng: random.Random, run: Path, work: Path) -> str:
    """Images of every format, truncated and changed anywhere."""
    name = rng.choice(sorted(FILES))
    path = work / name
    FILES[name](path)
    path.write_bytes(damaged(path.read_bytes(), rng))
    return _told(partial(read_raw, path), name)


def _onnx_bytes(facts: str) -> bytes:
    """A graph whose logits are the image and its negative, as `swin-umamba export` describes it."""
    from onnx import TensorProto, helper

    def tensor(name: str, channels: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", channels, "h", "w"])

    nodes = [
        helper.make_node("Neg", ["image"], ["negative"]),
        helper.make_node("Concat", ["image", "negative"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(nodes, "graph", [tensor("image", 1)], [tensor("logits", 2)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key="swin_umamba", value=facts)
    content: bytes = model.SerializeToString()
    return content


def onnx_files(rng: random.Random, run: Path, work: Path) -> str:
    """Exported networks with changed bytes or metadata."""
    from swin_umamba.inference.facts import Facts

    plan = Run.open(run).require_plan()
    facts = Facts("model", 1, 2, 1, plan, "0").to_json()
    path = work / "w.onnx"
    if rng.random() < 0.5:
        path.write_bytes(damaged(_onnx_bytes(facts), rng))
    else:
        path.write_bytes(_onnx_bytes(json.dumps(changed(json.loads(facts), rng))))

    def predict() -> None:
        predictor = Predictor.from_export(path)
        image = torch.zeros(predictor.plan.in_channels, 40, 52).numpy()
        assert predictor(image).shape == (40, 52)

    return _told(predict, path.name, "patch size", "limit of")


ATTACKS: dict[str, Attack] = {
    "config.json": partial(run_json, "config.json"),
    "plan.json": partial(run_json, "plan.json"),
    "splits.json": partial(run_json, "splits.json"),
    "environment.json": partial(run_json, "environment.json"),
    "log.jsonl": run_log,
    "state.pt": run_state,
    "weights": weights,
    "pickles": pickles,
    "images": images,
    "case names": case_names,
    "op calls": op_calls,
}
if find_spec("onnx") and find_spec("onnxruntime"):
    ATTACKS["ONNX files"] = onnx_files
