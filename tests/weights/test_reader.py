"""The restricted reader: what loads, what becomes a placeholder, and what never runs."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from swin_umamba.weights import read_checkpoint
from swin_umamba.weights.reader import Placeholder

OLD = {"_use_new_zipfile_serialization": False}


class Logger:
    """A class of another project, with state."""

    def __init__(self) -> None:
        self.values = [np.float64(1.5)]


class Runs:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Fills(list):  # type: ignore[type-arg]
    """A list of another class, whose items a pickle appends."""


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
def test_tensors_containers_and_numbers_load(saved, options):
    weight = torch.randn(3, 4).half()
    content = {
        "model": collections.OrderedDict(a=weight, b=torch.nn.Parameter(torch.ones(2))),
        "view": weight[1:, ::2],
        "epoch": 3,
        "best": np.float64(0.25),
        "count": np.int64(-7),
        "names": ["x", ("y", {"z"})],
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "none": None,
        "complex": 1 + 2j,
    }
    found = read_checkpoint(saved(content, **options))
    assert torch.equal(found["model"]["a"], weight)
    assert found["model"]["a"].dtype == torch.float16
    assert torch.equal(found["model"]["b"], torch.ones(2))
    assert torch.equal(found["view"], weight[1:, ::2])
    assert found["best"] == 0.25
    assert found["count"] == -7
    for name in ("epoch", "names", "dtype", "size", "none", "complex"):
        assert found[name] == content[name]


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
def test_other_objects_are_placeholders(saved, options):
    content = {
        "model": {"a": torch.ones(1)},
        "logger": Logger(),
        "config": Namespace(lr=0.1),
        "path": Path("x"),
        "filled": Fills([1, 2, 3]),
        "array": np.arange(3),
        "object": np.array(Logger(), dtype=object),
        "default": collections.defaultdict(list, a=[1]),
    }
    found = read_checkpoint(saved(content, **options))
    assert torch.equal(found["model"]["a"], torch.ones(1))
    for name in set(content) - {"model"}:
        assert isinstance(found[name], Placeholder), name
    assert "Logger" in repr(found["logger"])


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "make",
    [
        lambda mark: Runs(os.system, f"touch {mark}"),
        lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Runs(exec, f"open({str(mark)!r}, 'w')"),
        lambda mark: Runs(open, str(mark), "w"),
        lambda mark: Runs(getattr, "x", "upper"),
        lambda mark: Runs(torch.hub.load, str(mark), "x"),
        lambda mark: Runs(torch.load, str(mark)),
        lambda mark: Runs(pickle.loads, pickle.dumps(Runs(open, str(mark), "w"))),
        lambda mark: Runs(map, Runs(os.mkdir, str(mark)), [1]),
        lambda mark: [Runs(os.mkdir, str(mark))] * 3,
    ],
    ids=["system", "eval", "exec", "open", "getattr", "hub", "load", "loads", "map", "nested"],
)
def test_nothing_in_a_hostile_file_runs(saved, tmp_path, make, options):
    mark = tmp_path / "ran"
    path = saved({"model": {"a": torch.ones(1)}, "payload": make(mark)}, **options)
    found = read_checkpoint(path)
    assert torch.equal(found["model"]["a"], torch.ones(1))
    assert not mark.exists()


def test_a_hostile_scalar_is_not_unpickled(tmp_path, saved):
    mark = tmp_path / "ran"
    scalar = np.float64(0).__reduce__()[0]
    inner = pickle.dumps(Runs(open, str(mark), "w"))
    found = read_checkpoint(saved({"a": torch.ones(1), "s": Runs(scalar, np.dtype("O"), inner)}))
    assert isinstance(found["s"], Placeholder)
    assert not mark.exists()


def text(value: str) -> bytes:
    """A string as a pickle holds it."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def legacy(path: Path, pickled: bytes) -> Path:
    """A file of torch's old format with a pickle of one's own."""
    torch.save({}, path, **OLD)  # type: ignore[arg-type]
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, system
            pickle.load(file)
        start = path.read_bytes()[: file.tell()]
    path.write_bytes(start + pickled + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "_codecs encode",
        "torch._utils _rebuild_parameter",
        "numpy.core.multiarray scalar",
        "collections OrderedDict",
        "torch Size",
        "torch FloatStorage",
        "numpy dtype",
        "os system",
    ],
)
def test_what_a_pickle_names_cannot_be_changed(tmp_path, name):
    """Pickles set attributes; torch writes `<__name__>.patch` for a class with dump_patches."""
    mark = tmp_path / "ran"
    named = "c{}\n{}\n".format(*name.split()).encode()
    attributes = text("dump_patches") + b"\x88" + text("__name__") + text(str(mark))
    source = b"(" + text("module") + named + text("a") + text("b") + b"tQ"
    path = legacy(
        tmp_path / "w.pth", b"\x80\x02" + named + b"(N}(" + attributes + b"utb0" + source + b"."
    )
    message = ""
    try:
        read_checkpoint(path)
    except ValueError as error:
        message = str(error)
    assert not message or "w.pth is damaged or not a weights file" in message
    assert {p.name for p in tmp_path.iterdir()} == {"w.pth"}
    for found in (torch._utils._rebuild_parameter, collections.OrderedDict, torch.FloatStorage):
        assert not hasattr(found, "dump_patches")
        assert found.__name__ != str(mark)


def test_archives_that_torch_would_unpack_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    parts = {
        "\x80\x02": b"",
        "storages": pickle.dumps(0, 2) + pickle.dumps([], 2),
        "tensors": pickle.dumps(0, 2),
        "pickle": pickle.dumps({"a": 1}, 2),
    }
    with tarfile.open(path, "w", encoding="latin1", format=tarfile.GNU_FORMAT) as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match="tar archive"):
        read_checkpoint(path)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_named(saved, kept, options):
    path = saved({"model": {"a": torch.randn(64, 64), "b": torch.randn(9)}}, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"checkpoint\.pth is damaged or not a weights file"):
        read_checkpoint(path)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pickles_raise_nothing_else(saved, tmp_path, seed):
    """Bytes of the pickle inside changed at random."""
    path = saved({"model": {"a": torch.randn(4), "b": Logger()}, "n": [1, "two", (3.0,)]})
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                for place in rng.integers(2, len(data), 3):
                    data[place] = rng.integers(256)
            new.writestr(name, bytes(data))
    path.write_bytes(out.getvalue())
    message = ""  # the bytes that were changed may not matter
    try:
        read_checkpoint(path)
    except ValueError as error:
        message = str(error)
    assert not message or "checkpoint.pth is damaged or not a weights file" in message


FORCE, FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
def test_torchs_switches_are_honoured_and_named(saved, monkeypatch, options):
    plain = saved({"model": {"a": torch.ones(2)}}, "plain.pth", **options)
    foreign = saved({"model": {"a": torch.ones(2)}, "logger": Logger()}, "foreign.pth", **options)
    save_file({"a": torch.ones(2)}, plain.with_suffix(".safetensors"))
    monkeypatch.setenv(FORCE_NOT, "1")
    for path in (plain, foreign):
        assert torch.equal(read_checkpoint(path)["model"]["a"], torch.ones(2))
    monkeypatch.setenv(FORCE, "yes")
    with pytest.raises(ValueError, match=f"takes only one of {FORCE} and {FORCE_NOT}"):
        read_checkpoint(plain)
    monkeypatch.delenv(FORCE_NOT)
    assert torch.equal(read_checkpoint(plain)["model"]["a"], torch.ones(2))
    assert torch.equal(read_checkpoint(plain.with_suffix(".safetensors"))["a"], torch.ones(2))
    with pytest.raises(ValueError, match=rf"foreign\.pth holds more than tensors.*{FORCE} is set"):
        read_checkpoint(foreign)
    plain.write_bytes(plain.read_bytes()[:99])
    with pytest.raises(ValueError, match=r"plain\.pth .*damaged"):
        read_checkpoint(plain)


def test_programs_text_and_missing_files_are_refused(tmp_path, saved):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "program.pt")
    with pytest.raises(ValueError, match="TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")
    (tmp_path / "notes.txt").write_text("weights: none")
    with pytest.raises(ValueError, match="first bytes match no format"):
        read_checkpoint(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        read_checkpoint(tmp_path / "nothing.pth")


def test_a_header_whose_length_reads_as_zip_is_none(tmp_path):
    """Safetensors start with the length of their header; 0x4B50 bytes read as `PK`."""
    path = tmp_path / "weights.safetensors"
    tensors = {"a": torch.ones(2)}
    save_file(tensors, path, {"x": ""})
    (least,) = struct.unpack("<Q", path.read_bytes()[:8])
    save_file(tensors, path, {"x": "y" * (0x4B50 - least)})
    assert path.read_bytes()[:2] == b"PK"
    assert torch.equal(read_checkpoint(path)["a"], torch.ones(2))


def test_safetensors_are_known_by_content(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.bin")
    assert torch.equal(read_checkpoint(tmp_path / "weights.bin")["a"], torch.ones(2))
