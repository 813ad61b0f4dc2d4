"""The only reader of foreign checkpoints: tensors, containers and numbers load, no code runs.

Sizes stated in a file are compared with its length before memory is allocated: records of zip files
must be uncompressed, as torch writes them, all storages together must not exceed the file, and the
pickle that describes them is limited to MAX_PICKLE bytes.
"""

from __future__ import annotations

import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from swin_umamba.weights.pickled_values import Placeholder as Placeholder
from swin_umamba.weights.unpickling import MAX_PICKLE, PickleModule

_ZIP = b"PK\x03\x04"
_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, ValueError,
    TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, ImportError,
    AssertionError,
)  # fmt: skip
"""Exceptions raised when unpickling truncated, damaged or malicious files."""


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read a checkpoint to the CPU: safetensors, or PyTorch's format, new or legacy.

    Everything but tensors, containers, numbers and strings becomes a `Placeholder`; if
    TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, a file with such things is refused, as by torch. Raises
    FileNotFoundError, or ValueError for a file that is damaged or in another format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    forced, unforced = (_is_set(name) for name in (_FORCE, _FORCE_NOT))
    if forced and unforced:
        raise ValueError(
            f"{path} cannot be read: torch takes only one of {_FORCE} and {_FORCE_NOT}"
        )
    try:
        start = _start(path)
        if start[:4] == _ZIP:
            check_records(path)
        elif is_safetensors(path):
            return load_file(path)
        elif start[:1] != b"\x80":
            raise ValueError("its first bytes match no format of weights")
        elif tarfile.is_tarfile(path):
            raise ValueError(
                "it is a tar archive as written by PyTorch 0.1, which torch would unpack"
            )
        # Torch's own weights-only reader refuses a whole file for a single unknown name, but
        # whoever sets its variable wants that reader.
        if forced:
            return torch.load(path, map_location="cpu", weights_only=True)
        budget = path.stat().st_size
        return torch.load(
            path, map_location="cpu", pickle_module=PickleModule(budget), weights_only=False
        )
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a weights file: {error}") from error
    except _BROKEN as error:
        if forced and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} holds more than tensors, or is damaged: {_FORCE} is set, so that torch's"
                " own reader is used, and it refuses the file. Unset that for the reader here,"
                " which runs nothing in a file either"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or not a weights file: {reason}") from error


def _is_set(variable: str) -> bool:
    """Parse an environment switch as torch does."""
    return os.environ.get(variable, "").lower() in ("1", "y", "yes", "true")


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts like safetensors: with the length of a header, which is JSON."""
    start = _start(path)
    # The two bytes of zip's signature are not enough: they may be such a length.
    return start[:4] != _ZIP and start[8:] == b"{"


def _start(path: str | os.PathLike[str]) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(9)


def check_records(path: str | os.PathLike[str]) -> None:
    """Check the names and sizes in a torch zip file before any of it is read.

    Raises ValueError for a program, for compressed records, for records larger than the file, and
    for a pickle larger than MAX_PICKLE; RuntimeError or BadZipFile if it is no such file.
    """
    names = torch._C.PyTorchFileReader(os.fspath(path)).get_all_records()
    if "constants.pkl" in names:
        raise ValueError("it is a TorchScript program, not weights")
    with zipfile.ZipFile(path) as archive:
        # Torch's names omit the folder that contains all of its records.
        sizes = {info.filename.partition("/")[2]: info.file_size for info in archive.infolist()}
        packed = [
            info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED
        ]
    # Torch does the reading, and a file can be crafted to show different readers different records.
    if sorted(names) != sorted(sizes):
        raise ValueError("its list of records is ambiguous")
    if packed:
        raise ValueError(f"its record {packed[0]} is compressed, which torch's own never are")
    if sum(sizes.values()) > Path(path).stat().st_size:
        raise ValueError(f"its records are {sum(sizes.values()):,} bytes, more than the file")
    if sizes.get("data.pkl", 0) > MAX_PICKLE:
        raise ValueError(f"its data.pkl is larger than {MAX_PICKLE >> 20} MiB")
