"""Weights on disk: safetensors files that also describe how to build their model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from swin_umamba.common.files import replacing
from swin_umamba.common.jsons import kind_of, parse_json
from swin_umamba.errors import UserError

LEFT_OUT = "left_out"
"""Metadata key listing, separated by spaces, what a conversion left out."""
_OF_A_MACHINE = ("backend", "device")
SHOWN = 5  # names listed for each kind of mismatch


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the model's state dict to `path` atomically; missing folders are created.

    For a model of `create_model` the file also contains its arguments: see `read_config`.
    """
    save_tensors(model.state_dict(), path, {}, getattr(model, "config", None))


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str],
    config: Mapping[str, Any] | None,
) -> None:
    """Write tensors by name, atomically. config: the arguments that build their model."""
    described = {"format": "pt", **metadata}
    if config is not None:
        described["config"] = json.dumps(portable(config))
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(Path(path)) as partial:
        try:
            save_file(plain, partial, described)
        except SafetensorError as error:
            raise UserError(f"cannot write {path}: {error}") from error


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config without its machine-specific choices: backend and device."""
    return {name: value for name, value in config.items() if name not in _OF_A_MACHINE}


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a file of `save_weights` into the model; names and shapes must match.

    Values are converted to the model's dtype. Raises FileNotFoundError, or ValueError if the file
    is not a complete safetensors file or does not match; the model is then unchanged.
    """
    with _open(path) as file:
        _require_fit(model, file, path)
        model.load_state_dict({name: file.get_tensor(name) for name in model.state_dict()})


def require_fit(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Raise as `load_weights` does, without loading; the model may be on the meta device."""
    with _open(path) as file:
        _require_fit(model, file, path)


def _require_fit(model: nn.Module, file: Any, path: str | os.PathLike[str]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    problems = [
        *_listed("missing", (n for n in expected if n not in found)),
        *_listed("not in the model", (n for n in found if n not in expected)),
        *_listed(
            "of another shape",
            (
                f"{n} {found[n]} instead of {expected[n]}"
                for n in expected
                if n in found and found[n] != expected[n]
            ),
        ),
    ]
    if problems:
        raise ValueError(f"{path} does not fit {type(model).__name__}: " + "; ".join(problems))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; errors as in `load_weights`."""
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arguments of `create_model`, by name, that built the model of a weights file.

    Without machine-specific choices. Errors as in `load_weights`.
    """
    metadata = read_metadata(path)
    if "config" not in metadata:
        raise ValueError(f"{path} does not say which model it belongs to")
    try:
        config = parse_json(metadata["config"])
        if not isinstance(config, dict):
            raise ValueError(f"got {kind_of(config)}, expected a JSON object")
        for name, kind in (("name", str), ("in_channels", int), ("out_channels", int)):
            if type(config.get(name)) is not kind:
                raise ValueError(f"{name}: got {config.get(name)!r}, expected {kind.__name__}")
    except ValueError as error:
        raise ValueError(f"{path} has an invalid description of its model: {error}") from error
    return portable(config)


def left_of_a_machine(path: str | os.PathLike[str], options: Mapping[str, Any]) -> set[str]:
    """The machine-specific choices among some options, as stored by older files."""
    stored = parse_json(read_metadata(path)["config"])
    return {n for n in _OF_A_MACHINE if n in options and stored.get(n) == options[n]}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a safetensors file; errors as in `load_weights`."""
    with _open(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights file at {path}")
    try:
        file = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
    with file:
        yield file


def _listed(kind: str, items: Iterable[str]) -> list[str]:
    """'3 missing: a, b, c', shortened, or empty if there are no items."""
    names = list(items)
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{more}"]
