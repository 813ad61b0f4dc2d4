"""What a pickle may refer to: a few functions that build tensors, containers and numpy scalars."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = "biufc"  # kinds of numpy dtypes
_LARGEST_KEY = 1 << 60  # below this, no two integers have the same hash


class Placeholder:
    """Stands in for an object, class or function that is not loaded, by its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<placeholder of {self.name}>"


class Function:
    """A function that a pickle may call, and do nothing else with."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class Dtype:
    """numpy.dtype as a pickle builds it, numeric types only."""

    __slots__ = ("order", "spec")

    def __init__(self, spec: object, *flags: object) -> None:
        self.spec, self.order = spec, "="

    def build(self, state: object) -> None:
        """Apply the byte order from the state that numpy pickles for a dtype."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]


def as_key(value: Any) -> Any:
    """A value as a dictionary key or set item: text, bytes and integers.

    Anything else becomes a placeholder, as hashes of other values can be made to collide, or take
    forever.
    """
    if isinstance(value, (str, bytes, bool, type(None), torch.dtype)):
        return value
    if isinstance(value, int) and -_LARGEST_KEY < value < _LARGEST_KEY:
        return value
    return Placeholder(type(value).__name__)


def as_dict(items: list[Any]) -> dict[Any, Any]:
    """A dictionary from alternating keys and values."""
    if len(items) % 2:
        raise pickle.UnpicklingError("a key without a value")
    return {as_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _scalar(dtype: object, content: object = b"") -> Any:
    """A numpy scalar from its bytes; numpy's own function would also unpickle objects."""
    if not isinstance(dtype, Dtype) or not isinstance(dtype.spec, str):
        raise pickle.UnpicklingError("a numpy scalar without a dtype")
    kind = np.dtype(dtype.spec)
    if kind.kind not in _NUMBERS or not isinstance(content, bytes):
        return Placeholder("numpy scalar")
    if dtype.order == ">":
        kind = kind.newbyteorder(">")
    return np.frombuffer(content, kind, count=1)[0]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """_codecs.encode, with which old pickles write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    """A tensor as a view of its storage, without gradients and hooks."""
    whole = torch._utils._rebuild_tensor(storage, 0, (0,), (1,))
    # Other functions that give a tensor its shape enlarge the storage if necessary.
    return torch.as_strided(whole, size, stride, offset)


def _parameter(data: object, *_: object) -> Any:
    return data if isinstance(data, Tensor) else Placeholder("torch.nn.Parameter")


def _ordered(items: object = ()) -> OrderedDict[Any, Any]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("an ordered dictionary not made from pairs")
    return OrderedDict((as_key(key), value) for key, value in items)


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, (list, tuple)):
        raise pickle.UnpicklingError("a set not made from a list")
    return set(map(as_key, items))


def _frozen(items: object = ()) -> frozenset[Any]:
    return frozenset(_set(items))


NAMES: dict[tuple[str, str], Function] = {
    ("collections", "OrderedDict"): Function(_ordered),
    ("builtins", "set"): Function(_set),
    ("builtins", "frozenset"): Function(_frozen),
    ("builtins", "complex"): Function(complex),
    ("_codecs", "encode"): Function(_encode),
    ("torch", "Size"): Function(torch.Size),
    ("torch", "device"): Function(torch.device),
    ("torch._utils", "_rebuild_tensor"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("numpy", "dtype"): Function(Dtype),
    ("numpy.core.multiarray", "scalar"): Function(_scalar),
    ("numpy._core.multiarray", "scalar"): Function(_scalar),
}
