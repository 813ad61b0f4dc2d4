"""Segment files with a trained run, each in its own format and geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba.data import (
    CaseFiles,
    Plan,
    group_images,
    mask_ending,
    read_raw,
    write_labels,
    write_probabilities,
)
from swin_umamba.data.formats import ending_of
from swin_umamba.errors import UserError
from swin_umamba.predict import Predictor, predict


@dataclass(frozen=True)
class Outcome:
    """Names of the cases that were done, found done already, and failed, with why."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]


def predict_files(
    run: Path,
    inputs: Path,
    output: Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    probabilities: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write a mask for every image, in the image's format (PNG for lossy ones) and geometry.

    run: a training run's folder with its plan. inputs: a folder, or one image of one file; images
    of several files are named as nnU-Net does (_0000, _0001, ...). probabilities: write (K, Z, H,
    W) beside each as .npz. What `output` holds already is left as it is unless `overwrite`, so that
    a broken-off job goes on. A file that cannot be read is told in the outcome and does not end the
    job. Raises UserError if the run or the inputs cannot be read, or the output not be written.
    """
    predictor = Predictor.from_run(run, checkpoint=checkpoint, device=device)
    plan = Plan.load(run / "plan.json")
    if inputs.is_file() and plan.files_per_image == 1:
        cases = [CaseFiles(inputs.name.removesuffix(ending_of(inputs) or ""), (inputs,))]
    else:
        cases = group_images(inputs, files=plan.files_per_image)
    return predict_cases(
        predictor,
        plan,
        cases,
        output,
        probabilities=probabilities,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def predict_cases(
    predictor: Predictor,
    plan: Plan,
    cases: Sequence[CaseFiles],
    output: Path,
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """`predict_files` of cases whose files are known, with a model that is loaded."""
    done: list[str] = []
    skipped: list[str] = []
    failed: dict[str, str] = {}
    for number, case in enumerate(cases, 1):
        name, paths = case.name, case.images
        try:
            raw = read_raw(paths)
            target = output / (name + mask_ending(raw))
            if target.exists() and not overwrite:
                skipped.append(name)
            else:
                _predict_one(predictor, plan, paths, target, probabilities)
                done.append(name)
        except UserError as error:
            if str(output) in str(error):
                raise
            failed[name] = str(error)
        if on_progress is not None:
            on_progress(number, len(cases))
    return Outcome(tuple(done), tuple(skipped), failed)


def _predict_one(
    predictor: Predictor, plan: Plan, paths: Sequence[Path], target: Path, probabilities: bool
) -> None:
    raw = read_raw(paths)
    labels, kept = [], []
    for image in plan.preprocess(raw):
        found = predict(
            predictor.model,
            np.ascontiguousarray(image),
            patch_size=predictor.patch_size,
            overlap=predictor.overlap,
        )
        labels.append(found.argmax(0))
        if probabilities:
            kept.append(found)
    if probabilities:
        name = target.name[: -len(mask_ending(raw))] + ".npz"
        write_probabilities(target.with_name(name), plan.restore(np.stack(kept), raw), raw)
    write_labels(target, plan.restore(np.stack(labels), raw), raw, plan.values)
