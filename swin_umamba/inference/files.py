"""Segment files with a trained run, each in its own format and geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from swin_umamba.common.files import sha256, write_bytes
from swin_umamba.data import (
    CaseFiles,
    Plan,
    group_images,
    mask_ending,
    read_raw,
    write_labels,
    write_probabilities,
)
from swin_umamba.data.io.formats import ending_of
from swin_umamba.data.io.raw import RawImage
from swin_umamba.drawing.overlays import Canvas, png
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Predictor, weights_of
from swin_umamba.inference.record import Images, Record, facts_of
from swin_umamba.inference.scratch import ScratchError, scratch
from swin_umamba.metrics.instances import instance_map

INSTANCES, OVERLAYS = "instances", "overlays"  # folders beside the masks
MOST_IN_PNG = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Extras:
    """What to write besides masks.

    probabilities: (K, Z, H, W) beside each mask as .npz; the disk holds them meanwhile, once more
    and not compressed, or twice where spacings differ, memory a band of rows. instances:
    in a folder of that name, the 8-connected objects of class 1, numbered from 1 as
    `swin_umamba.metrics.instance_f1` splits them; of images of one slice. overlays: the same for
    PNGs of the classes over the image.
    """

    probabilities: bool = False
    instances: bool = False
    overlays: bool = False


MASKS_ALONE = Extras()


class Segmenter(Protocol):
    """What segments normalised slices (C, H, W) into classes (H, W), or probabilities in bands.

    bands: the first row of each, and (K, rows, W).
    """

    def labels(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]: ...

    def bands(
        self, image: npt.NDArray[np.float32]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]: ...


@dataclass(frozen=True)
class Outcome:
    """Names of the cases that were done, found done already, and failed, with why.

    redone: those of the first that had been done before, of images that have changed since.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    redone: tuple[str, ...] = ()


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
    `inference.predictor.predict`. onnx: `run` is a file of `swin-umamba export` in place of a
    folder, and onnxruntime computes. extras: what to write besides. What `output` holds already is
    left as it is unless `overwrite` or its image has changed, and only what is missing is written,
    so that a broken-off job goes on; `predict_record.RECORD` there tells what made each file. A
    file that cannot be read is told in the outcome and does not end the job. Raises UserError if
    the run or the inputs cannot be read, a file to write is one of the inputs or, without
    `overwrite`, there and made by another model or other options, or the output cannot be written.
    """
    predictor: Segmenter
    made_by: dict[str, Any]
    if onnx:
        if mirror or amp != "off" or device not in ("auto", "cpu") or checkpoint != "best":
            raise UserError("mirror, amp, device and last are for runs, not for ONNX files")
        predictor, plan = _from_onnx(run)
        made_by = {"runtime": "onnxruntime", "model": sha256(run)}
    else:
        if run.is_file():
            raise UserError(f"{run} is a file, not the folder of a run; of an export, say --onnx")
        weights = weights_of(run, checkpoint)
        predictor, plan = _from_run(run, checkpoint, device, mirror, amp)
        made_by = {
            "runtime": "torch",
            "model": sha256(weights),
            "plan": sha256(run / "plan.json"),
            "patch size": predictor.patch_size,
            "overlap": predictor.overlap,
            "mirror": mirror,
            "amp": amp,
        }
    return predict_cases(
        predictor,
        plan,
        _cases(inputs, plan.files_per_image),
        output,
        extras=extras,
        overwrite=overwrite,
        made_by=made_by,
        on_progress=on_progress,
    )


def _from_run(
    run: Path, checkpoint: str, device: str, mirror: bool, amp: str
) -> tuple[Predictor, Plan]:
    predictor = Predictor.from_run(
        run, checkpoint=checkpoint, device=device, mirror=mirror, amp=amp
    )
    plan = Plan.load(run / "plan.json")
    model = predictor.model
    found, expected = (model.in_channels, model.out_channels), (plan.in_channels, plan.num_classes)
    if found != expected:
        raise UserError(
            f"{run} holds weights of another model: for {found[0]} channels and {found[1]} classes,"
            f" expected {expected[0]} and {expected[1]} as in its plan.json"
        )
    return predictor, plan


def _from_onnx(path: Path) -> tuple[Segmenter, Plan]:
    try:
        from swin_umamba.export.onnx_predictor import OnnxPredictor
    except ModuleNotFoundError as error:
        raise UserError(f"this needs {error.name}: pip install 'swin-umamba[export]'") from error
    predictor = OnnxPredictor(path)
    return predictor, predictor.plan


def _cases(inputs: Path, files: int) -> list[CaseFiles]:
    """The images of a folder, or the one that a file is, each of so many files."""
    if not inputs.is_file():
        cases = group_images(inputs, files=files)
        if not cases:
            raise UserError(f"{inputs} holds no images")
        return cases
    if files > 1:
        raise UserError(f"{inputs} is one file, but each image here has {files}: name their folder")
    # Named as among others in a folder.
    stem = inputs.name.removesuffix(ending_of(inputs) or "").removesuffix("_0000")
    return [CaseFiles(stem, (inputs,))]


@dataclass(frozen=True)
class _Targets:
    """The files that are asked for of one case."""

    mask: Path
    probabilities: Path | None
    instances: Path | None
    overlay: Path | None

    @classmethod
    def of(cls, case: CaseFiles, output: Path, extras: Extras) -> _Targets:
        mask = case.name + mask_ending(case.images[0])
        return cls(
            output / mask,
            output / f"{case.name}.npz" if extras.probabilities else None,
            output / INSTANCES / mask if extras.instances else None,
            output / OVERLAYS / f"{case.name}.png" if extras.overlays else None,
        )

    def paths(self) -> list[Path]:
        asked = (self.mask, self.probabilities, self.instances, self.overlay)
        return [path for path in asked if path is not None]


def predict_cases(
    predictor: Segmenter,
    plan: Plan,
    cases: Sequence[CaseFiles],
    output: Path,
    *,
    extras: Extras = MASKS_ALONE,
    overwrite: bool = False,
    made_by: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """`predict_files` of cases whose files are known, with a model that is loaded.

    made_by: what a file's record shall tell of the model; without, there is no record.
    """
    targets = [_Targets.of(case, output, extras) for case in cases]
    _require_apart(cases, targets)
    record = None if made_by is None else Record(output, made_by)
    there = {
        path: case.images
        for case, target in zip(cases, targets, strict=True)
        for path in target.paths()
        if not overwrite and path.exists()
    }
    outdated = set() if record is None else record.outdated(there)
    done: list[str] = []
    skipped: list[str] = []
    redone: list[str] = []
    failed: dict[str, str] = {}
    for number, (case, target) in enumerate(zip(cases, targets, strict=True), 1):
        wanted = {path for path in target.paths() if path not in there or path in outdated}
        if wanted:
            try:
                # Before the image is read: should it change meanwhile, the next job sees that.
                facts = [] if record is None else facts_of(case.images)
                found = _segment(predictor, plan, case.images, target)
            except ScratchError:
                raise
            except UserError as error:
                failed[case.name] = str(error)
            else:
                # What cannot be written ends the job: a full disk is full for the others too.
                with _noted(record, wanted, facts):
                    found.write(target, wanted, plan.values)
                done.append(case.name)
                if wanted & outdated:
                    redone.append(case.name)
        else:
            skipped.append(case.name)
        if on_progress is not None:
            on_progress(number, len(cases))
    return Outcome(tuple(done), tuple(skipped), failed, tuple(redone))


@contextmanager
def _noted(record: Record | None, files: set[Path], images: Images) -> Iterator[None]:
    """Note what makes the files: of new ones before it does, so that a kill leaves none unknown."""
    if record is None:
        yield
        return
    old = sorted(path for path in files if path.exists())
    new = sorted(files.difference(old))
    if new:
        record.note(new, images)
    yield
    if old:
        record.note(old, images)


def _require_apart(cases: Sequence[CaseFiles], targets: Sequence[_Targets]) -> None:
    """Refuse to write over what is to be read."""
    images = {path.resolve() for case in cases for path in case.images}
    for target in targets:
        for path in target.paths():
            if path.resolve() in images:
                raise UserError(f"{path} is one of the images: name another folder for the masks")


@dataclass(frozen=True)
class _Found:
    """What was found in one image: labels and instances (Z, H, W), probabilities (K, Z, H, W)."""

    raw: RawImage
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32] | None
    instances: npt.NDArray[np.int32] | None

    def write(self, target: _Targets, wanted: set[Path], values: Sequence[int]) -> None:
        """Write those of the targets that are wanted, each whole or not at all."""
        if target.probabilities in wanted and self.probabilities is not None:
            write_probabilities(target.probabilities, self.probabilities, self.raw)
        if target.instances in wanted and self.instances is not None:
            write_labels(target.instances, self.instances, self.raw)
        if target.overlay in wanted:
            _draw(target.overlay, self.raw, self.labels)
        # Last, since people take a mask that is there for the end of its case.
        if target.mask in wanted:
            write_labels(target.mask, self.labels, self.raw, values)


def _segment(predictor: Segmenter, plan: Plan, paths: Sequence[Path], target: _Targets) -> _Found:
    raw = read_raw(paths)
    if target.instances is not None and (depth := raw.pixels.shape[1]) > 1:
        raise UserError(f"{paths[0]}: instances are of images of one slice, it has {depth}")
    slices = plan.preprocess(raw)
    kept = None
    if target.probabilities is not None:
        found, kept = _segment_in_bands(predictor, plan, raw, slices, target.probabilities.parent)
    else:
        found = np.stack([predictor.labels(np.ascontiguousarray(s)) for s in slices])
    labels = plan.restore(found, raw)
    objects = None
    if target.instances is not None:
        objects = instance_map(labels[0] == 1)[None]
        if target.instances.suffix == ".png" and objects.max() > MOST_IN_PNG:
            raise UserError(
                f"{paths[0]}: {objects.max()} instances, more than the {MOST_IN_PNG} that a PNG"
                " can number; give the image as TIFF"
            )
    return _Found(raw, labels, kept, objects)


def _segment_in_bands(
    predictor: Segmenter, plan: Plan, raw: RawImage, slices: npt.NDArray[np.float32], folder: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Labels of the slices, and the probabilities (K, Z, H, W) on the image's grid, on disk."""
    depth, _, height, width = slices.shape
    labels = np.empty((depth, height, width), np.int64)
    with scratch(folder, (depth, plan.num_classes, height, width)) as kept:
        for z, image in enumerate(slices):
            for start, band in predictor.bands(np.ascontiguousarray(image)):
                labels[z, start : start + band.shape[1]] = band.argmax(0)
                kept.write(z, start, band)
        return labels, kept.restored(plan, raw)


def _draw(path: Path, raw: RawImage, labels: npt.NDArray[np.int64]) -> None:
    """The classes over the image, of a volume over the slice that holds most of them."""
    at = int((labels > 0).sum((1, 2)).argmax())
    canvas = Canvas(raw.pixels[:, at], raw.spacing[1:])
    write_bytes(path, png(canvas.under(canvas.classes(labels[at]))))
