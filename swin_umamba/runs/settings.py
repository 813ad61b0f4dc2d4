"""Settings as users write them: NAME=VALUE on the command line, and JSON or YAML files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from swin_umamba.common.files import reason_of
from swin_umamba.common.jsons import json_object, load_json, parse_json
from swin_umamba.common.record_errors import fitting
from swin_umamba.common.records import schema_of
from swin_umamba.data import Augmentation
from swin_umamba.errors import UserError
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.run_config import RunConfig

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null", "~")
_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_YAML = (".yaml", ".yml")
_MAX_YAML = 1 << 20  # bytes


def parse_settings(pairs: Sequence[str], config: type[RunConfig] = TrainConfig) -> dict[str, Any]:
    """Values by field from NAME=VALUE pairs, of the field's type; see `parse_setting`."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set: got {pair!r}, expected NAME=VALUE")
        values[name] = parse_setting(name, text, config)
    return values


def parse_setting(name: str, text: str, config: type[RunConfig] = TrainConfig) -> Any:
    """Parse the value of a config field according to its type.

    Booleans are true, yes, on, 1 and their opposites in any case; None and null mean None if the
    field allows it; numbers are written as in Python, lists as in JSON or Python; any other text
    stays text. Raises UserError, naming the field, the value and what is expected. Unknown names
    are left to the config's `changed`.
    """
    schema, field = _schema_of(name, config)
    if field is None:
        return _untyped(text)
    try:
        return _typed(text, field)
    except ValueError as error:
        wanted = fitting(field, schema)
        raise UserError(f"{name}: got {text!r}, expected {wanted}") from error


def load_settings(path: Path, config: type[RunConfig] = TrainConfig) -> dict[str, Any]:
    """Values by field from a JSON file, or YAML if its name ends in .yaml or .yml.

    A run's config of any schema is accepted. Raises UserError, naming the file, if it is missing,
    damaged or has another structure.
    """
    if path.suffix.lower() in _YAML:
        values = json_object(_load_yaml(path), str(path))
    else:
        values = json_object(load_json(path, "settings"), str(path))
    try:
        return config.migrated(values) if "schema" in values else values
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _schema_of(name: str, config: type[RunConfig]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The JSON schema that contains a field, and the field's own; None if it has no type."""
    outer, dot, inner = name.partition(".")
    if dot and outer == "augmentation":
        schema = schema_of(Augmentation)
        return schema, schema["properties"].get(inner)
    kind: type = config
    schema = schema_of(kind)
    return schema, None if dot else schema["properties"].get(name)


def _typed(text: str, field: dict[str, Any]) -> Any:
    word = text.strip().lower()
    kinds = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    if len(kinds) < len(field.get("anyOf", [field])) and word in _NONE:
        return None
    if any(part.get("const") == word for part in kinds):
        return word
    (kind,) = {part["type"] for part in kinds if "const" not in part}
    if kind == "boolean":
        if word not in _TRUE + _FALSE:
            raise ValueError("no switch")
        return word in _TRUE
    if kind == "integer":
        return int(text) if _INTEGER.fullmatch(text) else _whole(float(text))
    if kind == "number":
        return int(text) if _INTEGER.fullmatch(text) else float(text)
    if kind in ("array", "object"):
        return _untyped(text)  # the config checks its type
    return _unquoted(text)


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError("no whole number")
    return int(number)


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text


def _untyped(text: str) -> Any:
    """JSON; true, false and none in any case, also within lists; otherwise text."""
    word = text.strip().lower()
    if word in ("true", "yes", "on"):
        return True
    if word in ("false", "no", "off"):
        return False
    if word in _NONE:
        return None
    words = {"True": "true", "False": "false", "None": "null", "(": "[", ")": "]"}
    for written in (text, re.sub(r"\b(?:True|False|None)\b|[()]", lambda m: words[m[0]], text)):
        try:
            return json.loads(written)
        except (ValueError, RecursionError):
            continue
    return text


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers, so that 1e-4 is one; no aliases, which can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            ((name, _),) = Counter(names).most_common(1)
            raise yaml.YAMLError(f"it has the key {name!r} twice in one mapping")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*(?:[eE][-+]?\d+)?"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
    ),
    list("-+0123456789."),
)


def _load_yaml(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_YAML + 1)
        if len(content) > _MAX_YAML:
            raise ValueError(f"it is larger than {_MAX_YAML >> 20} MiB")
        return parse_json(json.dumps(yaml.load(content, _Loader)))
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise UserError(f"{path} cannot be read as YAML: {' '.join(reason.split())}") from error
