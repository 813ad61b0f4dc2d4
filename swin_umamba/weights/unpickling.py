"""Unpickle checkpoints safely: tensors, containers and numbers load, no code runs, memory is
bounded.

A pickle is a program that may call anything it names. Here its instructions, as parsed by
`pickletools`, are executed one by one: a name is either on a short list of functions that build
tensors, containers and numpy scalars, or becomes a placeholder that accepts every operation and
does nothing, and no attribute is ever set. A pickle may also state sizes of data that is not in the
file: what it builds is limited by the file's length.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from swin_umamba.weights.pickled_values import (
    NAMES,
    Dtype,
    Function,
    Placeholder,
    as_dict,
    as_key,
)

MAX_PICKLE = 32 << 20
"""Maximum bytes of one pickle, which describes the tensors but does not contain them."""
MAX_STEPS = 1 << 21
"""Maximum instructions of one pickle, twice those of the longest logs in checkpoints. One byte may
create a container, of up to 216 bytes."""
_MAX_TUPLE = 10_000
"""Maximum values in a tuple, counting nested tuples each time: a few bytes can create billions."""
_MAX_MEMO = 1 << 31
_MARK = object()

_Act = TypeVar("_Act", bound=Callable[["Unpickler", Any], None])
_ACTS: dict[str, Callable[[Unpickler, Any], None]] = {}


def _of(*names: str) -> Callable[[_Act], _Act]:
    """Decorator: implements the named instructions, given their arguments from the file."""

    def register(act: _Act) -> _Act:
        _ACTS.update(dict.fromkeys(names, act))
        return act

    return register


class Unpickler:
    """Reads one pickle; created and subclassed by torch.load.

    budget: bytes that all storages together may have. persistent_load: torch's loader of storages.
    """

    budget = 0
    persistent_load: Callable[[Any], Any]

    def __init__(self, file: Any, *, encoding: str = "utf-8") -> None:
        self._file, self._encoding = _Bounded(file), encoding
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._weights: dict[int, int] = {}
        self._tuples: list[tuple[Any, ...]] = []  # keeps them alive, so that their ids stay unique
        self._storages: set[Any] = set()
        self._held = 0  # their bytes

    def load(self) -> Any:
        """The value of the next pickle in the file, whose position is then behind it.

        Raises UnpicklingError, and whatever building its values raises, for damaged pickles.
        """
        steps = pickletools.genops(self._file)  # type: ignore[arg-type]  # read, readline do
        for number, (instruction, argument, _) in enumerate(steps):
            if number >= MAX_STEPS:
                raise pickle.UnpicklingError(f"it has more than {MAX_STEPS} instructions")
            if instruction.name == "STOP":
                break
            if instruction.name not in _ACTS:
                raise pickle.UnpicklingError(f"it has the instruction {instruction.name}")
            _ACTS[instruction.name](self, argument)
        return self._stack.pop()

    def find_class(self, module: str, name: str) -> Any:
        """What a name refers to; torch's subclass knows the names of storages."""
        module = "builtins" if module == "__builtin__" else module  # Python 2's name, in protocol 2
        if (module, name) in NAMES:
            return NAMES[module, name]
        found = getattr(torch, name, None) if module == "torch" else None
        return found if isinstance(found, torch.dtype) else Placeholder(f"{module}.{name}")

    @_of("PROTO", "FRAME")
    def _pass(self, argument: Any) -> None:
        pass

    @_of("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    @_of("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
    @_of("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
    def _push(self, value: Any) -> None:
        self._stack.append(value)

    @_of("STRING", "BINSTRING", "SHORT_BINSTRING")
    def _push_text(self, content: str) -> None:
        # Strings of Python 2; pickletools decodes their bytes as Latin-1.
        self._stack.append(content.encode("latin-1").decode(self._encoding))

    @_of("NONE")
    def _push_none(self, _: None) -> None:
        self._stack.append(None)

    @_of("NEWTRUE")
    def _push_true(self, _: None) -> None:
        self._stack.append(True)

    @_of("NEWFALSE")
    def _push_false(self, _: None) -> None:
        self._stack.append(False)

    @_of("MARK")
    def _mark(self, _: None) -> None:
        self._stack.append(_MARK)

    @_of("POP")
    def _drop(self, _: None) -> None:
        self._stack.pop()

    @_of("POP_MARK")
    def _drop_marked(self, _: None) -> None:
        self._marked()

    @_of("DUP")
    def _repeat(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    @_of("PUT", "BINPUT", "LONG_BINPUT")
    def _put(self, index: int) -> None:
        if not 0 <= index < _MAX_MEMO:
            raise pickle.UnpicklingError(f"its memo has the number {str(index)[:20]}")
        self._memo[index] = self._stack[-1]

    @_of("MEMOIZE")
    def _put_next(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    @_of("GET", "BINGET", "LONG_BINGET")
    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    @_of("EMPTY_LIST")
    def _push_list(self, _: None) -> None:
        self._stack.append([])

    @_of("LIST")
    def _push_list_of_marked(self, _: None) -> None:
        self._stack.append(self._marked())

    @_of("APPEND")
    def _append(self, _: None) -> None:
        self._add(self._last(1))

    @_of("APPENDS", "ADDITEMS")
    def _append_marked(self, _: None) -> None:
        self._add(self._marked())

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(map(as_key, items))
        elif not isinstance(target, Placeholder):
            raise pickle.UnpicklingError("it appends to something that is not a list")

    @_of("EMPTY_SET")
    def _push_set(self, _: None) -> None:
        self._stack.append(set())

    @_of("FROZENSET")
    def _push_frozen_set(self, _: None) -> None:
        self._stack.append(frozenset(map(as_key, self._marked())))

    @_of("EMPTY_DICT")
    def _push_dict(self, _: None) -> None:
        self._stack.append({})

    @_of("DICT")
    def _push_dict_of_marked(self, _: None) -> None:
        self._stack.append(as_dict(self._marked()))

    @_of("SETITEM")
    def _set_item(self, _: None) -> None:
        self._set(self._last(2))

    @_of("SETITEMS")
    def _set_marked_items(self, _: None) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(as_dict(items))
        elif not isinstance(target, Placeholder):
            raise pickle.UnpicklingError("it sets items of something that is not a dictionary")

    @_of("EMPTY_TUPLE")
    def _push_tuple(self, _: None) -> None:
        self._stack.append(())

    @_of("TUPLE")
    def _push_tuple_of_marked(self, _: None) -> None:
        self._push_weighed(tuple(self._marked()))

    @_of("TUPLE1")
    def _push_tuple_of_one(self, _: None) -> None:
        self._push_weighed(tuple(self._last(1)))

    @_of("TUPLE2")
    def _push_tuple_of_two(self, _: None) -> None:
        self._push_weighed(tuple(self._last(2)))

    @_of("TUPLE3")
    def _push_tuple_of_three(self, _: None) -> None:
        self._push_weighed(tuple(self._last(3)))

    def _push_weighed(self, made: tuple[Any, ...]) -> None:
        weight = sum(self._weights.get(id(item), 1) for item in made if isinstance(item, tuple))
        weight += len(made)
        if weight > _MAX_TUPLE:
            raise pickle.UnpicklingError("tuples within tuples of too many values")
        self._weights[id(made)] = weight
        self._tuples.append(made)
        self._stack.append(made)

    @_of("GLOBAL")
    def _push_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self.find_class(module, name))

    @_of("STACK_GLOBAL")
    def _push_global_of_stack(self, _: None) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("it uses a name that is not text")
        self._stack.append(self.find_class(module, name))

    @_of("REDUCE", "NEWOBJ")
    def _call_with_tuple(self, _: None) -> None:
        self._call(*self._last(2))

    @_of("NEWOBJ_EX")
    def _call_with_keywords(self, _: None) -> None:
        function, arguments, keywords = self._last(3)
        if keywords and isinstance(function, Function):
            raise pickle.UnpicklingError("it calls a function by keywords")
        self._call(function, arguments)

    @_of("OBJ")
    def _call_marked(self, _: None) -> None:
        function, *arguments = self._marked()
        self._call(function, tuple(arguments))

    @_of("INST")
    def _call_named(self, argument: str) -> None:
        arguments = self._marked()
        self._push_global(argument)
        self._call(self._stack.pop(), tuple(arguments))

    def _call(self, function: Any, arguments: Any) -> None:
        if isinstance(function, Placeholder):
            self._stack.append(function)
        elif isinstance(function, Function) and isinstance(arguments, tuple):
            self._stack.append(function.call(*arguments))
        else:
            raise pickle.UnpicklingError("it calls something that is not a function")

    @_of("BUILD")
    def _build(self, _: None) -> None:
        # Attributes of everything else are ignored.
        state = self._stack.pop()
        if isinstance(target := self._stack[-1], Dtype):
            target.build(state)

    @_of("BINPERSID")
    def _push_storage(self, _: None) -> None:
        place = self._stack.pop()
        if not isinstance(place, tuple) or len(place) not in (4, 5, 6):
            raise pickle.UnpicklingError("it refers to a storage in another way than torch")
        if place[0] == "module":  # a class with its source code, which torch would compare
            self._stack.append(place[1])
            return
        kind, key, where, values, *view = place[1:]
        words = (key, where, *(view[0] if view and isinstance(view[0], tuple) else view))
        if not all(isinstance(word, (str, int, type(None))) for word in words):
            raise pickle.UnpicklingError("it refers to a storage in another way than torch")
        if key not in self._storages:
            size = getattr(getattr(kind, "dtype", torch.uint8), "itemsize", 1)
            if not isinstance(values, int) or not 0 <= values * size <= self.budget - self._held:
                raise pickle.UnpicklingError("it describes storages larger than the file")
            self._storages.add(key)
            self._held += values * size
        self._stack.append(self.persistent_load(place))

    def _marked(self) -> list[Any]:
        """Pop everything above the topmost mark, and the mark."""
        at = len(self._stack) - 1
        while at >= 0 and self._stack[at] is not _MARK:
            at -= 1
        if at < 0:
            raise pickle.UnpicklingError("it lacks a mark")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise pickle.UnpicklingError("it pops more values than there are")
        found = self._stack[-count:]
        del self._stack[-count:]
        return found


class _Bounded:
    """The next bytes of an open file, at most MAX_PICKLE: checked before they are read, so that a
    claimed length takes no memory."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MAX_PICKLE

    def read(self, count: int) -> bytes:
        self._count(count)
        content: bytes = self._file.read(count)
        return content

    def readline(self) -> bytes:
        content: bytes = self._file.readline(self._left + 1)
        self._count(len(content))
        return content

    def _count(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError(f"a pickle in it is larger than {MAX_PICKLE >> 20} MiB")


class PickleModule:
    """The part of the module `pickle` that torch.load uses.

    budget: bytes that the loaded data may take: the length of the file.
    """

    UnpicklingError = pickle.UnpicklingError

    def __init__(self, budget: int) -> None:
        self.__name__ = "pickle"  # which torch checks
        self.Unpickler = type("Unpickler", (Unpickler,), {"budget": budget})

    def load(self, file: Any, **options: Any) -> Any:
        return self.Unpickler(file, **options).load()
