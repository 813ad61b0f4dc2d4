"""Checkpoints: weights and training state that always belong together.

state.pt, replaced atomically, is authoritative. It contains the digest of every weights file that
belongs to it. New weights are first written beside the old ones, under a name with their iteration;
then state.pt is replaced; then the new weights are moved into place. Whenever a process dies, the
files of the last state.pt exist: in place, or waiting to be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from swin_umamba.common.files import file_for_torch, reason_of, replacing, sha256
from swin_umamba.common.partial import sweep
from swin_umamba.errors import UserError
from swin_umamba.runs.state import FILES, STATE, State, read_state
from swin_umamba.weights import load_weights, save_weights

_PENDING = ".pending-"


class Checkpoints:
    """The checkpoints of one run, of which only the last is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[str, str] = {}

    def save(self, state: State, weights: Mapping[str, nn.Module]) -> None:
        """Write a checkpoint.

        state: tensors, numbers, strings, None, and dicts and lists of them, including "iteration".
        weights: by file name, those that changed since the last checkpoint; the others are kept.
        Raises UserError, naming the file, if one cannot be written; the last checkpoint then
        remains valid.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} was removed during the run")
        written = {}
        try:
            for name, model in weights.items():
                written[name] = self._write_weights(self._pending(name, state["iteration"]), model)
            digests = {**self._digests, **written}
            self._write_state({**state, FILES: digests})
        except BaseException:
            for name in weights:
                with suppress(OSError):  # a failure here must not hide the original error
                    self._pending(name, state["iteration"]).unlink()
            raise
        self._digests = digests
        for name in written:
            self._move(self._pending(name, state["iteration"]), self.folder / name)

    def settle(self) -> None:
        """Complete what a killed process had begun: one process calls this before `load`."""
        state = read_state(self.folder / STATE)
        digests = {} if state is None else state[FILES]
        for pending in sorted(self.folder.glob(f"{_PENDING}*")):
            name = pending.name.removeprefix(_PENDING).split("-", 1)[-1]
            if digests.get(name) == sha256(pending):
                self._move(pending, self.folder / name)
            else:
                pending.unlink()
        sweep(self.folder, alone=True)

    def load(self) -> State | None:
        """The last checkpoint's state, on the CPU; None if there is none.

        Raises UserError, naming the file, if it is damaged, or if weights do not belong to it.
        """
        state = read_state(self.folder / STATE)
        if state is None:
            return None
        for name, digest in state[FILES].items():
            path = self.folder / name
            if not path.is_file():
                raise UserError(f"{path} is missing, which belongs to {self.folder / STATE}")
            if sha256(path) != digest:
                raise UserError(
                    f"{path} is damaged or was replaced: {self.folder / STATE} needs another"
                    " written with"
                )
        self._digests = state[FILES]
        return state

    def load_weights(self, name: str, model: nn.Module) -> None:
        """Load one of the weights files. Raises UserError if it belongs to another model."""
        try:
            load_weights(model, self.folder / name)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot resume: {error}") from error

    def _pending(self, name: str, iteration: int) -> Path:
        return self.folder / f"{_PENDING}{iteration}-{name}"

    def _write_weights(self, path: Path, model: nn.Module) -> str:
        save_weights(model, path)
        return sha256(path)

    def _write_state(self, state: State) -> None:
        path = self.folder / STATE
        with replacing(path) as partial, file_for_torch(partial) as file:
            torch.save(state, file)

    def _move(self, source: Path, target: Path) -> None:
        try:
            source.replace(target)
        except OSError as error:
            raise UserError(f"cannot write {target}: {reason_of(error)}") from error
