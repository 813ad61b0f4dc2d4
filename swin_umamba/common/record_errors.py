"""Describe an invalid record field in one line: the field, the value, and what is expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
_NOUNS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "switch"}
_MANY = 2**31 - 1  # a bound that only reflects the type
_SHOWN = 160  # maximum characters of a value


def explained(error: ValidationError, values: Mapping[str, Any], schema: dict[str, Any]) -> str:
    """The first problem with the values given to a record. schema: the JSON schema of its class."""
    problem = error.errors(include_url=False)[0]
    place, kind = problem["loc"], problem["type"]
    dotted = ".".join(map(str, place))
    if kind == "value_error":  # from a check of our own, which already names the field
        message = str(problem["ctx"]["error"])
        between = "" if not place else ": " if message.startswith("got ") else "."
        return f"{dotted}{between}{message}"
    if kind == "unexpected_keyword_argument":
        return f"unknown field {dotted}"
    if kind == "missing" and len(place) == 1:
        return f"{dotted} is missing"
    name = str(place[0])
    field = schema["properties"][name]
    ranged = kind in _RANGES and len(place) == 1
    wrong = ", of the wrong type: expected " if kind.endswith("_type") else ", expected "
    return f"{name}: got {shown(values.get(name))}{wrong}{fitting(field, schema, ranged=ranged)}"


def shown(value: Any) -> str:
    """A value's repr, shortened."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # integers of thousands of digits
        return "a huge number"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def fitting(field: dict[str, Any], schema: dict[str, Any], *, ranged: bool = False) -> str:
    """What a field accepts by its JSON schema, as "a whole number, at least 1". ranged: only the
    range."""
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    if "anyOf" in field:
        others = [part for part in field["anyOf"] if part.get("type") != "null"]
        none = ["None"] * (len(others) < len(field["anyOf"]))
        return " or ".join((*none, *(fitting(part, schema, ranged=ranged) for part in others)))
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return f"one of {', '.join(map(str, field['enum']))}"
    kind, limits = field.get("type"), _limits(field)
    if ranged and limits:
        return limits
    if kind == "boolean":
        return "true or false"
    if kind == "object":
        return "names with their values"
    if kind == "array":
        return _array(field)
    noun = _NOUNS.get(str(kind), "value")
    article = "" if noun == "text" else "a "
    return f"{article}{noun}{', ' if limits else ''}{limits}"


def _array(field: dict[str, Any]) -> str:
    inner = field.get("prefixItems") or [field.get("items", {})]
    count = _COUNTS.get(len(inner), str(len(inner))) if "prefixItems" in field else "a list of"
    limits = _limits(inner[0])
    nouns = _NOUNS.get(inner[0].get("type", ""), "value") + "s"
    return f"{count} {nouns}{', ' if limits else ''}{limits}"


def _limits(field: dict[str, Any]) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    if most is not None and most >= _MANY:
        most = None
    if above is not None and below is not None:
        return f"between {above:g} and {below:g}"
    if least is not None and most is not None:
        return f"{least:g} to {most:g}"
    if least is not None and below is not None:
        return f"at least {least:g} and below {below:g}"
    if above is not None:
        return f"above {above:g}" + ("" if most is None else f", at most {most:g}")
    if least is not None:
        return "0 or above" if least == 0 else f"at least {least:g}"
    return ""
