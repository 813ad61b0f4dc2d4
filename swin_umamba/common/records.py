"""Typed records, validated on creation and stored in JSON and YAML files with a schema number.

A record is a frozen dataclass whose fields pydantic validates strictly: text is not converted to
numbers, nor numbers to booleans. The dataclasses functions (replace, fields, asdict) work on it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import Self, dataclass_transform

from swin_umamba.common.files import write_text
from swin_umamba.common.jsons import json_object, load_json, parse_json
from swin_umamba.common.record_errors import explained
from swin_umamba.errors import UserError

_Class = TypeVar("_Class", bound=type)
_Item = TypeVar("_Item")
_RULES = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

Listed = Strict(False)
"""In `Annotated[tuple[...], Listed]`: accept a list, as in JSON; its items stay strict."""
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def record(cls: _Class) -> _Class:
    """Class decorator: a frozen dataclass that raises ValueError, naming the field, for a value
    that does not fit."""
    made = checked_dataclass(frozen=True, config=_RULES)(cls)
    initialise: Callable[..., None] = made.__init__

    @wraps(initialise)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        names = [f.name for f in dataclasses.fields(made)]
        given = dict(zip(names, args, strict=False))
        if len(args) > len(names) or given.keys() & values.keys():
            raise TypeError(f"{made.__name__}: got more than one value for a field")
        given.update(values)
        try:
            initialise(self, **given)
        except ValidationError as error:
            raise ValueError(explained(error, given, schema_of(made))) from error

    made.__init__ = checked  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


@cache
def schema_of(cls: type) -> dict[str, Any]:
    """The JSON schema of a record class."""
    schema: dict[str, Any] = TypeAdapter(cls).json_schema()
    return schema


def nested(cls: type[_Item]) -> BeforeValidator:
    """In `Annotated[Other, nested(Other)]`: a record inside another, also given as a dict."""
    return BeforeValidator(lambda value: cls(**value) if isinstance(value, dict) else value)


class Record:
    """Methods of every record that is stored in a file; for classes decorated with `record`.

    SCHEMA: number of the current schema. MIGRATIONS: for each older number, how its values become
    those of the next. Files without a number have schema 1.
    """

    WHAT: ClassVar[str]  # the name used in messages
    SCHEMA: ClassVar[int] = 1
    MIGRATIONS: ClassVar[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}

    def changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with some fields replaced by JSON or Python values.

        Raises ValueError, naming the field, if it is unknown or the value does not fit.
        """
        self._require_known(values)
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    def to_json(self) -> str:
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return json.dumps({"schema": self.SCHEMA, **values}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the output of `to_json` of this or an older version; missing fields keep defaults.

        Raises ValueError for anything but a JSON object of known fields with valid values.
        """
        return cls.from_values(parse_json(text))

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """The record from JSON values. Raises ValueError as `from_json` does."""
        values = cls.migrated(values)
        cls._require_known(values)
        return cls(**values)

    @classmethod
    def migrated(cls, values: Any) -> dict[str, Any]:
        """Values of any schema version, migrated to the current one, without the number."""
        if not isinstance(values, dict):
            raise ValueError(f"{cls.WHAT}: got {type(values).__name__}, expected a JSON object")
        found: dict[str, Any] = dict(values)
        number = found.pop("schema", 1)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"schema: got {number!r}, expected a whole number, at least 1")
        if number > cls.SCHEMA:
            raise ValueError(
                f"schema: got {number}, expected at most {cls.SCHEMA}: a newer version of"
                " swin-umamba wrote it, and is needed to read it"
            )
        for old in range(number, cls.SCHEMA):
            if old in cls.MIGRATIONS:
                found = cls.MIGRATIONS[old](found)
        return found

    def save(self, path: Path) -> None:
        """Write `to_json` atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `save`d file. Raises UserError, naming it, if it is missing or damaged."""
        what = f"a {cls.WHAT}"
        values = json_object(load_json(path, what), f"{path} cannot be read as {what}")
        try:
            return cls.from_values(values)
        except ValueError as error:
            raise UserError(f"{path} cannot be read as {what}: {error}") from error

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of the files, for editors and other programs."""
        schema: dict[str, Any] = TypeAdapter(cls).json_schema()
        number = {"type": "integer", "minimum": 1, "maximum": cls.SCHEMA, "default": 1}
        return {**schema, "properties": {"schema": number, **schema["properties"]}}

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type]

    @classmethod
    def _require_known(cls, values: Mapping[str, Any]) -> None:
        known = cls.field_names()
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{cls.WHAT}: unknown fields {', '.join(unknown)}{hint}")
