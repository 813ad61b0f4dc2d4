"""A run's state.pt: read with torch's weights-only reader, and validated before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, ClassVar
from zipfile import BadZipFile

import torch
from pydantic import Field

from swin_umamba.common.files import reason_of
from swin_umamba.common.record_errors import shown
from swin_umamba.common.records import Record, Share, record
from swin_umamba.errors import UserError
from swin_umamba.weights.reader import check_records

State = dict[str, Any]

STATE = "state.pt"
FILES = "files"  # key in the state: digests by file name

_Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
_Seconds = Annotated[float, Field(ge=0)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.]*$")]


@record
class Belonging:
    """What every state contains: its iteration, and the digests of the files that belong to it."""

    iteration: _Number
    files: dict[_FileName, _Digest]


@record
class Standing(Record):
    """The state of a run apart from its tensors."""

    WHAT: ClassVar[str] = "state"

    seconds: _Seconds
    reserve: _Seconds
    dsc: Share | None
    best: Share | None
    since_best: _Number
    skipped: _Number
    returns: _Number
    returned: str | None
    updates: _Number


def read_state(path: Path) -> State | None:
    """A run's state, on the CPU; None if there is none.

    Raises UserError, naming the file, if it is damaged or contains anything else.
    """
    try:
        if not path.exists():
            return None
        check_records(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, OverflowError, MemoryError, UnpicklingError,
            BadZipFile) as error:  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged or not a checkpoint: {reason}") from error
    if not isinstance(state, dict) or not {"iteration", FILES} <= state.keys():
        raise UserError(f"{path} is not a checkpoint of a run")
    try:
        Belonging(state["iteration"], state[FILES])
    except ValueError as error:
        raise UserError(f"{path} is not a checkpoint of a run: {error}") from error
    return state


def require_standing(state: State, folder: Path) -> None:
    """Raise UserError, naming the folder, unless the numbers in a state are valid."""
    needed = ("optimizer", "scaler", *Standing.field_names())
    missing = [repr(name) for name in needed if name not in state]
    try:
        if missing:
            raise ValueError(f"{', '.join(missing)} not in it")
        Standing(**{name: state[name] for name in Standing.field_names()})
    except ValueError as error:
        raise UserError(f"the checkpoint in {folder} does not fit: {error}") from error


def require_optimizer(state: State, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless a state's optimizer part matches the optimizer's parameters."""
    found = _mapping(state, "optimizer")
    own = optimizer.state_dict()
    groups = found.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise ValueError(f"optimizer: got the groups {shown(groups)}")
    for group, expected in zip(groups, own["param_groups"], strict=True):
        if not isinstance(group, dict) or group.get("params") != expected["params"]:
            raise ValueError("optimizer: it belongs to other parameters")
        for name, value in expected.items():
            # An invalid rate is overwritten before the first step.
            if type(group.get(name)) is not type(value) and name not in ("lr", "initial_lr"):
                raise ValueError(f"optimizer: got {name} {shown(group.get(name))}")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, values in _mapping(found, "state").items():
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise ValueError(f"optimizer: it refers to a parameter {shown(index)}")
        if not isinstance(values, dict) or values.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"optimizer: got {shown(values)} for parameter {index}")
        for name, value in values.items():
            shape = torch.Size() if name == "step" else parameters[index].shape
            if not isinstance(value, torch.Tensor) or value.shape != shape:
                raise ValueError(f"optimizer: {name} of parameter {index} has another shape")
            if not value.is_floating_point() or not bool(value.isfinite().all()):
                raise ValueError(f"optimizer: {name} of parameter {index} is not finite")


def require_scaler(state: State, scaler: torch.amp.GradScaler) -> None:
    """Raise ValueError unless a state's gradient scaler part is valid."""
    found, own = _mapping(state, "scaler"), scaler.state_dict()
    for name, value in found.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or (name in own and type(value) is not type(own[name])):
            raise ValueError(f"scaler: got {shown(name)} {shown(value)}")
    if own and found and found.keys() != own.keys():
        raise ValueError(f"scaler: got {', '.join(map(str, found))}")


def _mapping(state: Mapping[str, Any], name: str) -> dict[Any, Any]:
    value = state.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a mapping")
    return value
