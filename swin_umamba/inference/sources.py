"""Load trained networks: from a run folder, or an exported file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba.common.devices import pick_device
from swin_umamba.common.files import sha256
from swin_umamba.common.graph_choice import CudaGraph
from swin_umamba.data import Plan
from swin_umamba.errors import UserError
from swin_umamba.inference.network import Network, TorchNetwork, require_finite
from swin_umamba.inference.postprocessing import Postprocessing
from swin_umamba.models.loading import load_model
from swin_umamba.runs.folder import PLAN, POSTPROCESSING
from swin_umamba.runs.run import Run

ONNX = ".onnx"


@dataclass(frozen=True)
class Source:
    """A network and how it is used. plan: None if it was trained on arrays.

    files: what it was read from, by role. keep_largest: classes whose masks are reduced to the
    largest component.
    """

    network: Network
    runtime: str
    plan: Plan | None
    patch_size: tuple[int, int]
    overlap: float
    keep_largest: tuple[int, ...]
    files: dict[str, Path]

    def facts(self) -> dict[str, Any]:
        """Its entry in a prediction record: checksums, and everything that affects the result."""
        return {
            "runtime": self.runtime,
            **{role: sha256(path) for role, path in self.files.items()},
            "patch size": self.patch_size,
            "overlap": self.overlap,
        }


def open_run(
    folder: Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    amp: str = "off",
    postprocessing: bool = True,
    patch_size: tuple[int, int] | None = None,
    cuda_graph: CudaGraph = "auto",
) -> Source:
    """The network of a run: see `Predictor.from_run`."""
    if patch_size is not None and min(patch_size) < 1:
        raise UserError(f"patch_size: got {patch_size}, expected two numbers above 0")
    run = Run.open(folder)
    weights = run.weights(checkpoint)
    run.warn_if_unfinished()
    try:
        model = load_model(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a finished training run: {error}") from error
    require_finite(model, str(weights))
    model.to(pick_device(device)).eval().requires_grad_(False)
    network = TorchNetwork(model, amp=amp, name=str(weights), cuda_graph=cuda_graph)
    files = {"model": weights} | ({} if run.plan is None else {"plan": folder / PLAN})
    return Source(
        network,
        "torch",
        run.plan,
        run.config.patch_size if patch_size is None else patch_size,
        run.config.overlap,
        classes_to_clean(run) if postprocessing else (),
        files,
    )


def classes_to_clean(run: Run) -> tuple[int, ...]:
    """The classes to reduce to their largest component, from the run's postprocessing."""
    if run.postprocessing is None or run.plan is None:
        return ()
    path = run.folder / POSTPROCESSING
    try:
        found = Postprocessing.from_values(run.postprocessing)
        classes = found.classes(run.plan)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as postprocessing: {error}") from error
    if found.weights not in (None, sha256(run.weights())):
        warnings.warn(
            f"{path} is not applied: the run has been trained further since it was written. Remove"
            " it, predict the validation cases and run swin-umamba evaluate --find-postprocessing",
            stacklevel=2,
        )
        return ()
    return classes


def open_export(path: Path, *, overlap: float | None = None, postprocessing: bool = True) -> Source:
    """An exported file: see `Predictor.from_export`."""
    if path.suffix.lower() == ".pt2":
        raise UserError(
            f"{path}: PyTorch reads .pt2 files by running code in them; export as {ONNX} to"
            " predict with a file"
        )
    try:
        from swin_umamba.inference.onnx_network import OnnxNetwork
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'swin-umamba[export]'") from error
    network = OnnxNetwork(path)
    plan = network.facts.plan
    if plan is None:
        raise UserError(f"{path} holds no plan: export it from the folder of a run with one")
    facts = network.facts
    return Source(
        network,
        "onnxruntime",
        plan,
        plan.patch_size,
        facts.overlap if overlap is None else overlap,
        facts.keep_largest if postprocessing else (),
        {"model": path},
    )
