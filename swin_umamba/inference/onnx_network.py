"""ONNX files as networks, through onnxruntime."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as states
from torch import Tensor

from swin_umamba.errors import UserError
from swin_umamba.inference.facts import INPUT, KEY, OUTPUT, Facts

_DAMAGED = (
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NotImplemented,
    states.RuntimeException,
)
_FATAL = 4  # onnxruntime's logging level
_FLOAT = "tensor(float)"
RUN_SECONDS = 600
"""Seconds after which a batch of windows is aborted."""


class OnnxNetwork:
    """A file of `export_onnx`: `logits = network(images)`, as from the exported model.

    images: (B, in_channels, H, W), floating point, on any device; logits: (B, out_channels, H, W)
    float32 on the CPU, where onnxruntime's default provider runs. facts: the file's metadata.
    threads: maximum number, at least 1; by default as many as PyTorch uses. They share the images
    of a batch, because the loop of a scan occupies only one thread. Raises UserError if the file is
    missing, damaged or not from `export_onnx`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        if not Path(path).is_file():
            raise UserError(f"no ONNX file at {path}")
        threads = torch.get_num_threads() if threads is None else threads
        if threads < 1:
            raise ValueError(f"threads: got {threads}, expected at least 1")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads would otherwise wait busily, and slow down those that run other images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Its log messages could contain anything that is in the file.
        options.log_severity_level = _FATAL
        try:
            with redirect_stdout(io.StringIO()):
                self.session = onnxruntime.InferenceSession(
                    Path(path), options, providers=list(providers)
                )
            facts = self.session.get_modelmeta().custom_metadata_map.get(KEY)
            inputs = [(found.name, found.type) for found in self.session.get_inputs()]
            outputs = [(found.name, found.type) for found in self.session.get_outputs()]
        except (*_DAMAGED, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as ONNX: {error}") from error
        if facts is None:
            raise UserError(f"{path} is ONNX, but was not written by swin-umamba export")
        try:
            self.facts = Facts.from_json(facts)
        except ValueError as error:
            raise UserError(f"{path} has damaged metadata: {error}") from error
        if (inputs, outputs) != ([(INPUT, _FLOAT)], [(OUTPUT, _FLOAT)]):
            raise UserError(
                f"{path} is a graph from {inputs} to {outputs}, expected one from {INPUT} to"
                f" {OUTPUT}, both {_FLOAT}"
            )
        self.name = str(path)
        self.device = torch.device("cpu")
        self.threads = threads
        self.in_channels, self.out_channels = self.facts.in_channels, self.facts.out_channels

    def __call__(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.facts.in_channels or 0 in images.shape:
            raise ValueError(
                f"images: got shape {tuple(images.shape)}, expected"
                f" (B, {self.facts.in_channels}, H, W), none of them 0"
            )
        array = images.detach().float().cpu().contiguous().numpy()
        parts = np.array_split(array, min(self.threads, len(array)))
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL  # failures are raised as exceptions anyway
        # A graph could loop forever.
        timer = threading.Timer(RUN_SECONDS, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()

        def run(part: npt.NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(self.session.run([OUTPUT], {INPUT: part}, options)[0])

        try:
            if len(parts) == 1:
                return run(array)
            with ThreadPoolExecutor(len(parts)) as pool:
                return torch.cat(list(pool.map(run, parts)))
        except _DAMAGED as error:
            reason = str(error).splitlines()[0]
            if options.terminate:
                reason = f"it took more than {RUN_SECONDS} seconds"
            size = "x".join(map(str, images.shape))
            raise UserError(f"{self.name} cannot be run on windows of {size}: {reason}") from error
        finally:
            timer.cancel()
