"""Read untrusted JSON files: decoding, limits and checks in one place."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from swin_umamba.errors import UserError

MAX_BYTES = 512 << 20
MAX_DEPTH = 64
"""Maximum nesting of lists and objects: more than any file of ours needs, below Python's limit."""


def parse_json(content: str | bytes) -> Any:
    """Parse JSON text: UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises ValueError for anything else, NaN, infinities and numbers beyond a float's range, invalid
    Unicode, duplicate keys, and nesting beyond MAX_DEPTH.
    """
    if isinstance(content, bytes):
        content = content.decode(json.detect_encoding(content))
    content = content.removeprefix("\ufeff")
    try:
        value = json.loads(
            content, parse_float=_finite, parse_constant=_refused, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    if content.count("[") + content.count("{") > MAX_DEPTH or "\\u" in content:
        _check(value)
    return value


def load_json(path: str | os.PathLike[str], what: str) -> Any:
    """Read a JSON file with `parse_json`.

    what: description of the file for the message. Raises UserError, naming the file, if it is
    missing, larger than MAX_BYTES, or not valid JSON.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        return parse_json(content)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UserError(f"{path} cannot be read as {what}: {reason}") from error


def load_object(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """`load_json` for a file that must contain a JSON object."""
    return json_object(load_json(path, what), f"{path} cannot be read as {what}")


def json_object(value: Any, source: str) -> dict[str, Any]:
    """The value, which must be a JSON object. Raises UserError that starts with `source`."""
    if not isinstance(value, dict):
        raise UserError(f"{source}: got {kind_of(value)}, expected a JSON object")
    return value


def kind_of(value: Any) -> str:
    """JSON's name for a value's type, with its article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:30]} is out of range")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {ascii(key)[:60]} twice in one object")
    return made


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any) -> None:
    """Refuse deep nesting, and text with lone surrogates, which UTF-8 cannot encode."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                item.encode()  # UnicodeEncodeError is a ValueError
            elif isinstance(item, dict):
                inner += [*item, *item.values()]
            elif isinstance(item, list):
                inner += item
        level, depth = inner, depth + 1
