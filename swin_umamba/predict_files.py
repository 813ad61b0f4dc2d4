"""Segment files with a trained run, each in its own format and geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

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
from swin_umamba.data.raw import RawImage
from swin_umamba.errors import UserError
from swin_umamba.files import write_bytes
from swin_umamba.metrics.instances import instance_map
from swin_umamba.overlays import Canvas, png
from swin_umamba.predict import Predictor

INSTANCES, OVERLAYS = "instances", "overlays"  # folders beside the masks


@dataclass(frozen=True)
class Extras:
    """What to write besides masks.

    probabilities: (K, Z, H, W) beside each mask as .npz. instances: in a folder of that name, the
    8-connected objects of class 1, numbered from 1; of images of one slice. overlays: the same for
    PNGs of the classes over the image.
    """

    probabilities: bool = False
    instances: bool = False
    overlays: bool = False


MASKS_ALONE = Extras()


class Segmenter(Protocol):
    """What segments normalised slices (C, H, W) into classes (H, W) or probabilities (K, H, W)."""

    def labels(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]: ...

    def probabilities(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...


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
    mirror: bool = False,
    amp: str = "off",
    onnx: bool = False,
    extras: Extras = MASKS_ALONE,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write a mask for every image, in the image's format (PNG for lossy ones) and geometry.

    run: a training run's folder with its plan. inputs: a folder, or one image of one file; images
    of several files are named as nnU-Net does (_0000, _0001, ...). mirror, amp: as in
    `swin_umamba.predict.predict`. onnx: `run` is a file of `swin-umamba export` in place of a
    folder, and onnxruntime computes. extras: what to write besides. What `output` holds already is
    left as it is unless `overwrite`, so that a broken-off job goes on. A file that cannot be read
    is told in the outcome and does not end the job. Raises UserError if the run or the inputs
    cannot be read, or the output not be written.
    """
    predictor: Segmenter
    if onnx:
        if mirror or amp != "off" or device not in ("auto", "cpu") or checkpoint != "best":
            raise UserError("mirror, amp, device and last are for runs, not for ONNX files")
        predictor, plan = _from_onnx(run)
    else:
        predictor = Predictor.from_run(
            run, checkpoint=checkpoint, device=device, mirror=mirror, amp=amp
        )
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
        extras=extras,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def _from_onnx(path: Path) -> tuple[Segmenter, Plan]:
    try:
        from swin_umamba.export.onnx_predictor import OnnxPredictor
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'swin-umamba[export]'") from error
    predictor = OnnxPredictor(path)
    return predictor, predictor.plan


def predict_cases(
    predictor: Segmenter,
    plan: Plan,
    cases: Sequence[CaseFiles],
    output: Path,
    *,
    extras: Extras = MASKS_ALONE,
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
                _predict_one(predictor, plan, paths, target, extras)
                done.append(name)
        except UserError as error:
            if str(output) in str(error):
                raise
            failed[name] = str(error)
        if on_progress is not None:
            on_progress(number, len(cases))
    return Outcome(tuple(done), tuple(skipped), failed)


def _predict_one(
    predictor: Segmenter, plan: Plan, paths: Sequence[Path], target: Path, extras: Extras
) -> None:
    raw = read_raw(paths)
    depth = raw.pixels.shape[1]
    if extras.instances and depth > 1:
        raise UserError(f"{paths[0]}: instances are of images of one slice, it has {depth}")
    name = target.name[: -len(mask_ending(raw))]
    slices = plan.preprocess(raw)
    if extras.probabilities:
        found = np.stack([predictor.probabilities(np.ascontiguousarray(s)) for s in slices])
        kept = plan.restore(found, raw)
        write_probabilities(target.with_name(f"{name}.npz"), kept, raw)
        labels = plan.restore(found.argmax(1), raw)
    else:
        found = np.stack([predictor.labels(np.ascontiguousarray(s)) for s in slices])
        labels = plan.restore(found, raw)
    if extras.instances:
        objects = np.stack([instance_map(plane == 1) for plane in labels])
        if len(objects) > 1:
            raise UserError(
                f"{paths[0]}: instances are of images of one slice, it has {len(objects)}"
            )
        write_labels(target.parent / INSTANCES / target.name, objects, raw)
    if extras.overlays:
        _draw(target.parent / OVERLAYS / f"{name}.png", raw, labels)
    # Last, since a mask that is there says that its case is done.
    write_labels(target, labels, raw, plan.values)


def _draw(path: Path, raw: RawImage, labels: npt.NDArray[np.int64]) -> None:
    """The classes over the image, of a volume over the slice that holds most of them."""
    at = int((labels > 0).sum((1, 2)).argmax())
    canvas = Canvas(raw.pixels[:, at], raw.spacing[1:])
    picture = canvas.input().convert("RGBA")
    picture.alpha_composite(canvas.classes(labels[at]).convert("RGBA"))
    write_bytes(path, png(picture.convert("RGB")))
