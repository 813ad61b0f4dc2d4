"""A cache of the most recently used values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """At most `most` values by key; the least recently used one is evicted."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"most: got {most}, expected at least 1")
        self.most = most
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def values(self) -> Iterable[_Value]:
        return self._values.values()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """The value of a key. If there is none, it is created after making room for it."""
        if key not in self._values:
            while len(self._values) >= self.most:
                self._values.popitem(last=False)
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]

    def clear(self) -> None:
        self._values.clear()
