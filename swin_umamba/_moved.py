"""Old names of modules that have moved: importing one returns the module under its new name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "blocks": "models.blocks",
    "compiling": "common.compiling",
    "data.augmentation": "data.sampling.augmentation",
    "data.bare": "data.datasets.bare",
    "data.cache": "data.prepare.cache",
    "data.case": "data.sampling.case",
    "data.dataset": "data.datasets.dataset",
    "data.fingerprint": "data.prepare.fingerprint",
    "data.formats": "data.io.formats",
    "data.grouping": "data.datasets.grouping",
    "data.images": "data.io.images",
    "data.loader": "data.sampling.loader",
    "data.nnunet": "data.datasets.nnunet",
    "data.normalization": "data.prepare.normalization",
    "data.opening": "data.datasets.opening",
    "data.patches": "data.sampling.patches",
    "data.plan": "data.prepare.plan",
    "data.raw": "data.io.raw",
    "data.resampling": "data.prepare.resampling",
    "data.sample_pair": "demo.sample_pair",
    "data.splits": "data.datasets.splits",
    "data.volumes": "data.sampling.volumes",
    "data.writing": "data.io.writing",
    "decoder": "models.decoders",
    "drop_path": "models.drop_path",
    "encoder": "models.encoders",
    "environment": "common.environment",
    "export.facts": "inference.facts",
    "export.onnx_network": "inference.onnx_network",
    "files": "common.files",
    "flops": "models.flops",
    "graphs": "common.graphs",
    "layers": "models.layers",
    "overlays": "drawing.overlays",
    "plots": "drawing.plots",
    "predict": "inference.predictor",
    "predict_files": "inference.files",
    "predict_record": "inference.record",
    "predict_scratch": "inference.scratch",
    "ss2d": "models.ss2d",
    "summary": "models.summary",
    "train.board": "loop.board",
    "train.checkpoint": "runs.checkpoints",
    "train.config": "runs.config",
    "train.ema": "loop.ema",
    "train.guard": "loop.guard",
    "train.presets": "runs.presets",
    "train.run_folder": "runs.folder",
    "train.schedule": "loop.schedule",
    "train.sharding": "loop.sharding",
    "train.stopping": "loop.stopping",
    "train.world": "loop.world",
}
"""Old module names and their new names, both relative to `swin_umamba`."""

_PACKAGE = __name__.rpartition(".")[0]


# deliberately no importlib.abc base class: its import takes longer than everything here
class _MovedFinder:
    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if _below_package(name) not in MOVED:
            return None
        return importlib.util.spec_from_loader(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{_PACKAGE}.{MOVED[_below_package(spec.name)]}")
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The module has already run under its new name; the import system has just replaced its
        # spec.
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)


def _below_package(name: str) -> str:
    return name.removeprefix(f"{_PACKAGE}.")


def install() -> None:
    """Let Python resolve the old names, after its own search has failed."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
