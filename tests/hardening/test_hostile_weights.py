"""Weights files that describe more than they contain: refused, without allocating memory."""

from __future__ import annotations

import io
import json
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from swin_umamba import create_model
from swin_umamba.models.loading import load_model
from swin_umamba.weights import (
    convert,
    load_pretrained,
    read_checkpoint,
    reader,
    save_weights,
    unpickling,
)
from swin_umamba.weights.saved import read_config

TINY: dict[str, Any] = {"dims": (8, 8), "depths": (1, 1), "decoder_depths": (1,), "d_state": 1}


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = 0) -> Path:
    """A torch checkpoint with other records in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    path.write_bytes(out.getvalue())
    return path


def with_pickle(path: Path, content: bytes, *, legacy: bool) -> Path:
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=not legacy)
    if not legacy:
        return rewritten(path, lambda name, old: content if name.endswith("data.pkl") else old)
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, system
            pickle.load(file)
        start = path.read_bytes()[: file.tell()]
    path.write_bytes(start + content + pickle.dumps([], 2))
    return path


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(4_000_000)}, path)
    rewritten(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"w\.pth .*is compressed"):
        read_checkpoint(path)


# A dictionary whose key is (k, k) of (k, k) of ..., 40 deep: to hash it takes 2**40 steps.
NESTED = b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 40 + b"K\x01s."


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2**31 places
        NESTED,
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # bytes to make room for
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",  # a frame
        b"\x80\x02" + b"(" * 100_000 + b"}.",
        b"\x80\x02" + b"]" * 5_000 + b"a" * 4_999 + b".",
    ],
    ids=["memo", "nested", "bytearray", "frame", "marks", "lists"],
)
def test_small_pickles_stay_small(tmp_path: Path, content: bytes, legacy: bool) -> None:
    path = with_pickle(tmp_path / "w.pth", content, legacy=legacy)
    model = create_model("swin_umamba_d", in_channels=1, out_channels=2, **TINY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"w\.pth"):
        load_pretrained(model, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def storage(values: int) -> bytes:
    """A pickle of a tensor of ones with so many values, by its persistent id."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, torch.UntypedStorage):
                return ("storage", torch.FloatStorage, "0", "cpu", values, None)
            return None

    out = io.BytesIO()
    tensor = torch.ones(1)
    Pickler(out, 2).dump([tensor.untyped_storage()])
    return out.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("values", [2**34, 2**62, -1])
def test_storages_are_no_larger_than_the_file(tmp_path: Path, values: int, legacy: bool) -> None:
    path = with_pickle(tmp_path / "w.pth", storage(values), legacy=legacy)
    with pytest.raises(ValueError, match=r"w\.pth is damaged .*larger than the file"):
        read_checkpoint(path)


def test_storages_together_are_no_larger_than_the_file(tmp_path: Path) -> None:
    """Each of them is small, but there are many."""
    place = b"(\x8c\x07storagectorch\nFloatStorage\nK%cX\x03\x00\x00\x00cpuJ%bN" + b"tQ"
    places = b"".join(place % (key, struct.pack("<i", 100)) for key in range(8))
    path = with_pickle(tmp_path / "w.pth", b"\x80\x04](" + places + b"e.", legacy=True)
    assert 400 < path.stat().st_size < 3200
    with pytest.raises(ValueError, match=r"w\.pth is damaged .*storages larger than the file"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_are_bounded_in_bytes_and_steps(
    tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    content = {"network_weights": {"a": torch.ones(3)}, "note": "x" * 5000, "many": [0] * 5000}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(path)["note"] == content["note"]
    for module in (reader, unpickling):
        monkeypatch.setattr(module, "MAX_PICKLE", 4000)
    with pytest.raises(ValueError, match=r"w\.pth is damaged .* larger than"):
        read_checkpoint(path)
    monkeypatch.undo()
    monkeypatch.setattr(unpickling, "MAX_STEPS", 4000)
    with pytest.raises(ValueError, match=r"w\.pth is damaged .* more than 4000 instructions"):
        read_checkpoint(path)


def test_keys_whose_hashes_collide_cost_no_more_than_others(tmp_path: Path) -> None:
    """Python's integers and tuples can be made to collide at will; 4e8 comparisons here."""
    step = 2**61 - 1
    values = {i * step: i for i in range(100)}
    assert len({hash(key) for key in values}) == 1
    keys = b"".join(
        b"\x8a\x0a" + (i * step).to_bytes(10, "little") + b"K\x01" for i in range(20_000)
    )
    path = with_pickle(tmp_path / "w.pth", b"\x80\x02}(" + keys + b"u.", legacy=False)
    began = time.process_time()
    found = read_checkpoint(path)
    assert time.process_time() - began < 5
    assert len(found) == 20_000
    assert not any(isinstance(key, int) and key for key in found)


def test_methods_of_containers_cannot_be_replaced(tmp_path: Path) -> None:
    """BUILD sets attributes of an ordered dictionary, such as `items`."""
    state = b"}X\x05\x00\x00\x00itemscos\nsystem\ns"
    content = b"\x80\x02ccollections\nOrderedDict\n)R" + state + b"b."
    path = with_pickle(tmp_path / "w.pth", content, legacy=False)
    found = read_checkpoint(path)
    assert vars(found) == {}
    assert list(found.items()) == []


def test_tensors_repeated_by_a_stride_of_0_are_not_written_out(tmp_path: Path) -> None:
    model = create_model("swin_umamba_d", in_channels=1, out_channels=2, **TINY)
    tensors = {n: torch.zeros(1).expand(t.shape) for n, t in model.state_dict().items()}
    torch.save({"network_weights": tensors}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: .* of which the file holds"):
        convert(tmp_path / "w.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_block_s_number_is_no_number_of_blocks(tmp_path: Path) -> None:
    model = create_model("swin_umamba_d", in_channels=1, out_channels=2, **TINY)
    tensors = dict(model.state_dict())
    for name in list(tensors):
        if "layers.1.blocks.0." in name:
            tensors[name.replace("blocks.0.", "blocks.999999999.")] = tensors.pop(name)
    torch.save({"network_weights": tensors}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match="stage 1 has 1 blocks, of which one is numbered 999999999"
    ):
        convert(tmp_path / "w.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": [4096, 8192]}, "does not fit"),
        ({"dims": [10**9, 8]}, "dims"),
        ({"depths": [10**6, 1]}, "depths"),
        ({"depths": [4000, 4000]}, "depths"),
        ({"dims": "all"}, "model"),
        ({"dims": [8]}, "model"),
        ({"dims": [0, 8]}, "model"),
        ({"depths": [-1, 1]}, ""),
        ({"d_state": 10**12}, "d_state"),
        ({"in_channels": 0}, ""),
        ({"in_channels": "1"}, "in_channels"),
        ({"out_channels": 10**7}, "out_channels"),
        ({"name": "unet"}, "unet"),
        ({"name": None}, "name"),
        ({"width": 3}, "width"),
        ({"drop_path_rate": "x"}, "model"),
    ],
)
def test_what_a_file_says_of_its_model_is_held_to_its_tensors(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    model = create_model("swin_umamba_d", in_channels=1, out_channels=2, **TINY)
    save_weights(model, path)
    assert load_model(path).out_channels == 2
    config = {**read_config(path), **changes}
    save_file(model.state_dict(), path, {"format": "pt", "config": json.dumps(config)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=rf"w\.safetensors .*{message}"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_another_machine_s_backend_is_not_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = create_model("swin_umamba_d", in_channels=1, out_channels=2, backend="cpu", **TINY)
    save_weights(model, path)
    assert "backend" not in read_config(path)
    config = {**read_config(path), "backend": "cuda"}  # as written by earlier versions
    save_file(model.state_dict(), path, {"format": "pt", "config": json.dumps(config)})
    again = load_model(path).eval()
    with torch.no_grad():
        assert again(torch.zeros(1, 1, 32, 32))[0].isfinite().all()


def test_metadata_that_are_no_json_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for text in ("", "[", "[]", "null", '{"name": 1}', "[" * 10_000, '{"name": "\\ud800"}'):
        save_file({"a": torch.ones(1)}, path, {"config": text})
        with pytest.raises(ValueError, match=r"w\.safetensors has an invalid description"):
            read_config(path)


@pytest.mark.slow
def test_convert_ends_in_one_line(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "w.pth", NESTED, legacy=True)
    words = [sys.executable, "-m", "swin_umamba.cli", "convert", str(path), str(tmp_path / "o")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


def test_records_that_readers_list_differently_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(3)}, path)
    assert read_checkpoint(path)["a"].shape == (3,)

    def one_less(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        return list(archive.NameToInfo.values())[1:]

    monkeypatch.setattr(zipfile.ZipFile, "infolist", one_less)
    with pytest.raises(ValueError, match=r"w\.pth .*ambiguous"):
        read_checkpoint(path)
