"""Load a trained model's weights into one with other classes or image channels."""

from __future__ import annotations

import os
from collections import Counter

from torch import nn

from swin_umamba.weights.load import require_finite
from swin_umamba.weights.report import LOADED, MISSING, SKIPPED, UNEXPECTED, Entry, Report
from swin_umamba.weights.saved import read_tensors

KIND = "weights of a run"
_OUT, _IN = ("outputs", "input channels")
_SHOWN = 3


def continue_weights(model: nn.Module, path: str | os.PathLike[str]) -> Report:
    """Load everything that matches from a file of `save_weights`; other tensors are not changed.

    Other tensors may differ in size in their first dimension (heads, for another number of classes)
    or in their second (first layers, for another number of image channels). Raises
    FileNotFoundError, or ValueError for a file that is damaged or of another model, and then
    changes nothing.
    """
    places = model.state_dict()
    tensors = read_tensors(path)
    report = Report(os.fspath(path), KIND)
    fitting, foreign = {}, 0
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name not in places:
            status, note = UNEXPECTED, "the model has no such tensor"
        else:
            note = _difference(shape, tuple(places[name].shape))
            status = SKIPPED if note else LOADED
            if not note:
                fitting[name] = tensor
        foreign += status == UNEXPECTED or note == "another shape"
        report.entries.append(Entry(name, name if name in places else "", shape, status, note))
    for name in places.keys() - tensors.keys():
        shape = tuple(places[name].shape)
        report.entries.append(Entry("", name, shape, MISSING, "the file lacks it"))
        foreign += 1
    if foreign or not fitting:
        raise ValueError(
            f"{path} is not of {type(model).__name__}: of {len(places)} tensors,"
            f" {len(fitting)} fit and {foreign} differ in more than classes and image channels"
        )
    try:
        require_finite(fitting)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    model.load_state_dict({**places, **fitting})
    return report


def continuation(report: Report) -> str:
    """One line: how many tensors were loaded, and which were reinitialized and why."""
    loaded, fresh = report.of(LOADED), report.of(SKIPPED)
    line = f"{len(loaded)} of {len(report.entries)} tensors loaded"
    for why in Counter(entry.note for entry in fresh):
        names = [entry.target for entry in fresh if entry.note == why]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        line += f"; reinitialized ({why}): {', '.join(names[:_SHOWN])}{more}"
    return line


def _difference(shape: tuple[int, ...], place: tuple[int, ...]) -> str:
    """Why a tensor cannot be loaded; empty if it can."""
    if shape == place:
        return ""
    if shape and shape[1:] == place[1:]:
        return f"{shape[0]} {_OUT} there, {place[0]} here"
    if len(shape) > 1 and (shape[0], *shape[2:]) == (place[0], *place[2:]):
        return f"{shape[1]} {_IN} there, {place[1]} here"
    return "another shape"
