"""The one reader of foreign checkpoints: tensors, containers and numbers load, nothing runs.

A PyTorch checkpoint is a pickle, and a pickle may name any function to call. Here a name is either
on a short list of what builds tensors, containers and numpy's scalars, or becomes a placeholder
that takes whatever is done to it and does nothing. A pickle may also set attributes of what it
has named, so nothing that it can name can be changed.
"""

from __future__ import annotations

import collections
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

_ZIP = b"PK\x03\x04"
_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_NUMBERS = "biufc"  # kinds of numpy's dtypes
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError, ValueError,
    TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError, ImportError,
    AssertionError,
)  # fmt: skip
"""What unpickling raises on files that are cut off, damaged or made to mislead."""


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """What a checkpoint holds, on the CPU: safetensors, or PyTorch's format, new or legacy.

    Anything in it but tensors, containers, numbers and strings has become a `Placeholder`; where
    TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, a file with such things is refused, as torch does. Raises
    FileNotFoundError, or ValueError for a file that is damaged or of another format.
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
            _refuse_programs(path)
        elif is_safetensors(path):
            return load_file(path)
        elif start[:1] != b"\x80":
            raise ValueError("it starts like no format of weights")
        elif tarfile.is_tarfile(path):
            raise ValueError("it is a tar archive, which torch unpacks; PyTorch 0.1 wrote those")
        # Torch's own reader of weights alone refuses a whole file for a single foreign name, but
        # whoever sets its variable wants that one.
        if forced:
            return torch.load(path, map_location="cpu", weights_only=True)
        return torch.load(path, map_location="cpu", pickle_module=_Pickle, weights_only=False)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no weights file: {error}") from error
    except _BROKEN as error:
        if forced and isinstance(error, pickle.UnpicklingError):
            raise ValueError(
                f"{path} holds more than tensors, or is damaged: {_FORCE} is set, so that torch's"
                " own reader is used, and it refuses the file. Unset that for the reader here,"
                " which runs nothing in a file either"
            ) from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or no weights file: {reason}") from error


def _is_set(variable: str) -> bool:
    """As torch reads its switches."""
    return os.environ.get(variable, "").lower() in ("1", "y", "yes", "true")


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file starts as safetensors do: with the length of a header, which is JSON."""
    start = _start(path)
    # Two bytes of zip's mark would not do: they may be such a length.
    return start[:4] != _ZIP and start[8:] == b"{"


def _start(path: str | os.PathLike[str]) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(9)


def _refuse_programs(path: Path) -> None:
    # By torch's own list of names: it is torch that would run the program, and other readers of
    # zip files may see other names in one.
    if "constants.pkl" in torch._C.PyTorchFileReader(os.fspath(path)).get_all_records():
        raise ValueError("it is a TorchScript program, not weights")


class Placeholder:
    """Stands for an object of a class or function that is not loaded; swallows all it is given."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __new__(cls, *args: object, **kwargs: object) -> Placeholder:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> Placeholder:
        return self

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def add(self, item: object) -> None: ...


class _Dtype:
    """numpy.dtype as a pickle builds it, of numbers alone."""

    def __init__(self, spec: object, *flags: object) -> None:
        self.spec, self.order = spec, "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]


def _scalar(dtype: object, content: object = b"") -> Any:
    """numpy's scalar from its bytes; numpy's own function would also unpickle objects."""
    if not isinstance(dtype, _Dtype) or not isinstance(dtype.spec, str):
        raise pickle.UnpicklingError("a numpy scalar without a dtype")
    kind = np.dtype(dtype.spec)
    if kind.kind not in _NUMBERS or not isinstance(content, bytes):
        return Placeholder()
    if dtype.order == ">":
        kind = kind.newbyteorder(">")
    return np.frombuffer(content, kind, count=1)[0]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """_codecs.encode, by which old pickles write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


class _Fixed:
    """A function that a pickle may call but not change; functions themselves take attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError("it sets attributes of a function")


# Types are those whose attributes Python lets nobody set.
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _Fixed(_encode),
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): _Fixed(torch._utils._rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Fixed(torch._utils._rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): _Fixed(torch._utils._rebuild_parameter),
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _Fixed(_scalar),
    ("numpy._core.multiarray", "scalar"): _Fixed(_scalar),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # Python 2's name, in protocol 2
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module == "torch":
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype):  # storages' names are met by torch.load itself
                return found
        return type("Placeholder", (Placeholder,), {"__doc__": f"Stands for {module}.{name}."})


class _Pickle:
    """The part of the module `pickle` that torch.load asks for."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()
