"""Pickles of checkpoints: tensors, containers and numbers load, nothing runs, nothing grows.

A pickle may name any function to call. Here a name is either on a short list of what builds
tensors, containers and numpy's scalars, or becomes a placeholder that takes whatever is done to it
and does nothing. A pickle may also set attributes of what it has named, so nothing that it can name
can be changed. And it may tell of sizes that are nowhere in the file: what it builds is held to
what the file is long.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch

_NUMBERS = "biufc"  # kinds of numpy's dtypes
_MAX_TUPLE = 10_000
"""Values in a tuple, those of tuples in it included each time: a few bytes can name billions."""


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


# Python's own form of the unpickler, not C's: its memo is a dictionary, which no huge index makes
# large, and its steps can be checked one by one.
class _Unpickler(pickle._Unpickler):
    budget: int  # bytes that storages may have
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    # Makes room for as many bytes as it says, before it reads any. torch writes none.
    del dispatch[pickle.BYTEARRAY8[0]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._weights: dict[int, int] = {}
        self._tuples: list[tuple[Any, ...]] = []  # so that their identities stay theirs

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # Python 2's name, in protocol 2
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module == "torch":
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype):  # storages' names are met by torch.load itself
                return found
        return type("Placeholder", (Placeholder,), {"__doc__": f"Stands for {module}.{name}."})

    @property
    def persistent_load(self) -> Callable[[Any], Any]:
        return self._load_storage

    @persistent_load.setter
    def persistent_load(self, load: Callable[[Any], Any]) -> None:
        self._load = load

    def _load_storage(self, place: Any) -> Any:
        """torch's own loader of storages, after a look at what it is told."""
        if isinstance(place, tuple) and len(place) >= 5 and place[0] == "storage":
            kind, values = place[1], place[4]
            size = getattr(getattr(kind, "dtype", torch.uint8), "itemsize", 1)
            if not isinstance(values, int) or not 0 <= values * size <= self.budget:
                raise pickle.UnpicklingError(f"a storage of {values} values, more than the file")
        return self._load(place)

    def _weigh(self) -> None:
        made = self.stack[-1]  # type: ignore[attr-defined]
        weight = sum(self._weights.get(id(item), 1) for item in made if isinstance(item, tuple))
        weight += len(made)
        if weight > _MAX_TUPLE:
            raise pickle.UnpicklingError("tuples within tuples of too many values")
        self._weights[id(made)] = weight
        self._tuples.append(made)


def _weighed(build: Callable[[Any], None]) -> Callable[[Any], None]:
    def built(unpickler: Any) -> None:
        build(unpickler)
        unpickler._weigh()

    return built


for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Unpickler.dispatch[_code[0]] = _weighed(_Unpickler.dispatch[_code[0]])


class PickleModule:
    """The part of the module `pickle` that torch.load asks for.

    budget: bytes that what is loaded may take: the length of the file.
    """

    UnpicklingError = pickle.UnpicklingError

    def __init__(self, budget: int) -> None:
        self.__name__ = "pickle"  # which torch looks at
        self.Unpickler = type("Unpickler", (_Unpickler,), {"budget": budget})

    def load(self, file: Any, **options: Any) -> Any:
        return self.Unpickler(file, **options).load()
