"""Export models as files that PyTorch runs without this package's model code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from swin_umamba.common.files import file_for_torch, replacing
from swin_umamba.data import Plan
from swin_umamba.errors import UserError
from swin_umamba.export.program import (
    GRAPH_BACKEND,
    TRACING,
    VERIFYING,
    Step,
    check,
    min_side,
    no_step,
    trace,
)
from swin_umamba.inference.facts import KEY, Facts
from swin_umamba.models import SegmentationModel


def export_pt2(
    model: SegmentationModel,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    backend: str = GRAPH_BACKEND,
    device: torch.device | str = "cpu",
    on_step: Step = no_step,
    **use: Any,
) -> float:
    """Write the model's graph with torch.export: images to the finest logits, float32.

    With backend "export" it needs only PyTorch, but is slow, and `device` must be the CPU; with
    another it is as fast as that backend, and needs swin_umamba_ops to be installed and imported.
    Batch and image sizes are dynamic, the latter from `Facts.min_side` upwards. Raises ValueError
    for an unsuitable device.

    Returns what `check` finds when comparing the graph with the model; the file is written only
    after that, atomically. Its facts are an extra file named "swin_umamba"; use: their fields
    overlap and keep_largest.
    """
    if backend == GRAPH_BACKEND and torch.device(device).type != "cpu":
        raise ValueError(f"device: got {device}, expected the CPU with backend {backend!r}")
    facts = Facts.of(model, plan, min_side=min_side(model), **use)
    on_step(TRACING)
    program = trace(model, backend=backend, device=device)
    on_step(VERIFYING)
    error = check(program.module(), model, device=device)
    with replacing(Path(path)) as partial, file_for_torch(partial) as file:
        torch.export.save(program, file, extra_files={KEY: facts.to_json()})
    return error


def export_aot(
    model: SegmentationModel,
    path: str | os.PathLike[str],
    *,
    plan: Plan | None = None,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    on_step: Step = no_step,
    **use: Any,
) -> float:
    """Compile the model ahead of time with AOTInductor, for `device` and machines like this one.

    The scans remain calls of our ops: programs that load the file must import swin_umamba_ops
    first. backend: any but "export", which AOTInductor does not compile with dynamic sizes. Sizes,
    result, and writing are as in `export_pt2`; the facts are in the package's metadata. Raises
    ValueError for that backend, and UserError if compilation fails, for example without a compiler.
    """
    # Imported late: the compiler is slow to import.
    from torch._inductor import aoti_compile_and_package, aoti_load_package
    from torch._inductor.exc import InductorError

    if backend == GRAPH_BACKEND:
        raise ValueError(f"backend: got {backend!r}, which AOTInductor does not compile")
    facts = Facts.of(model, plan, min_side=min_side(model), **use)
    on_step(TRACING)
    program = trace(model, backend=backend, device=device)
    on_step("compiling")
    with replacing(Path(path)) as partial:
        try:
            with file_for_torch(partial) as file:
                aoti_compile_and_package(
                    program,
                    package_path=file,
                    inductor_configs={"aot_inductor.metadata": {KEY: facts.to_json()}},
                )
        except InductorError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"AOTInductor cannot compile this model here: {reason}") from error
        on_step(VERIFYING)
        return check(aoti_load_package(str(partial)), model, device=device)
