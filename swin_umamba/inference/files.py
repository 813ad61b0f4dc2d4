"""Segment files with trained runs, each in its own format and geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swin_umamba.common.files import resolved
from swin_umamba.common.locks import locked
from swin_umamba.common.memory import is_out_of_memory
from swin_umamba.common.partial import sweep
from swin_umamba.data import CaseFiles, group_images
from swin_umamba.data.io.formats import PICTURE_ENDINGS, TIFF_ENDINGS
from swin_umamba.data.io.listing import stem_of
from swin_umamba.errors import UserError
from swin_umamba.inference.predictor import Ensemble, Predictor
from swin_umamba.inference.record import Images, Manifest, facts_of
from swin_umamba.inference.scratch import ScratchError
from swin_umamba.inference.sources import ONNX
from swin_umamba.inference.targets import (
    MASKS_ALONE,
    Extras,
    Targets,
    segment_case,
)
from swin_umamba.runs.folds import folds_of

__all__ = ["MASKS_ALONE", "Extras", "Outcome", "predict_cases", "predict_files"]


@dataclass(frozen=True)
class Outcome:
    """Names of the cases that were done, already existed, or failed, with the reason.

    redone: those done that had existed before, but whose images have changed. dark: whether masks
    that were written are pictures or TIFFs whose label values a viewer shows as nearly black.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]
    redone: tuple[str, ...] = ()
    dark: bool = False


def predict_files(
    run: Path | Sequence[Path],
    inputs: Path,
    output: Path,
    *,
    checkpoint: str = "best",
    device: str = "auto",
    mirror: bool = False,
    amp: str = "off",
    onnx: bool = False,
    postprocessing: bool = True,
    patch_size: tuple[int, int] | None = None,
    extras: Extras = MASKS_ALONE,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Write a mask for every image, in the image's format (PNG for lossy ones) and geometry.

    run: a run folder, a cross-validation folder, which stands for all its folds, or an ONNX file of
    `swin-umamba export`, recognized by the ending .onnx or the argument `onnx`; probabilities of
    several are averaged. inputs: a folder, or one single-file image; images of several files are
    named as in nnU-Net (_0000, _0001, ...). checkpoint to patch_size: as in `Predictor.from_run`.
    extras: additional outputs. Existing files are kept unless `overwrite` is set or their image has
    changed, and only missing ones are written, so an interrupted job continues; `record.RECORD` in
    `output` records what produced each file. An image that cannot be segmented is listed in the
    outcome and does not end the job. Raises UserError if a run or the inputs cannot be read, if
    `output` is the image folder or a mask would replace an image, if an existing file was made by
    another model or with other options (without `overwrite`), or if the output cannot be written.
    """
    given = [run] if isinstance(run, Path) else run
    runs = [path for one in given for path in folds_of(one) or (one,)]
    predictor = open_predictor(
        runs,
        checkpoint=checkpoint,
        device=device,
        mirror=mirror,
        amp=amp,
        onnx=onnx,
        postprocessing=postprocessing,
        patch_size=patch_size,
    )
    if inputs.is_dir() and resolved(inputs) == resolved(output):
        raise UserError(
            f"{output} is the folder of the images, where masks would be read as images the next"
            " time: name another folder for the masks"
        )
    return predict_cases(
        predictor,
        _cases(inputs, predictor.plan.files_per_image),
        output,
        extras=extras,
        overwrite=overwrite,
        on_progress=on_progress,
    )


def open_predictor(
    runs: Sequence[Path],
    *,
    checkpoint: str = "best",
    device: str = "auto",
    mirror: bool = False,
    amp: str = "off",
    onnx: bool = False,
    postprocessing: bool = True,
    patch_size: tuple[int, int] | None = None,
) -> Predictor:
    """The predictor of a run or an exported file, or of several; see `predict_files`."""
    exported = [path for path in runs if path.is_file() or path.suffix.lower() == ONNX or onnx]
    for path in exported:
        if path.suffix.lower() != ONNX and not onnx:
            raise UserError(
                f"{path} is a file, not a run folder; for an exported model, use --onnx"
            )
    if exported and patch_size is not None:
        raise UserError("patch_size applies to runs, not to exported files")
    if exported == list(runs) and (
        amp != "off" or device not in ("auto", "cpu") or checkpoint != "best"
    ):
        raise UserError("amp, device and last apply to runs, not to ONNX files")
    found = [
        Predictor.from_export(path, mirror=mirror, postprocessing=postprocessing)
        if path in exported
        else Predictor.from_run(
            path,
            checkpoint=checkpoint,
            device=device,
            mirror=mirror,
            amp=amp,
            postprocessing=postprocessing,
            patch_size=patch_size,
        )
        for path in runs
    ]
    return found[0] if len(found) == 1 else Ensemble(found)


def _cases(inputs: Path, files: int) -> list[CaseFiles]:
    """The images of a folder, or the single one that a file or DICOM series is."""
    if inputs.is_file():
        if files > 1:
            raise UserError(
                f"{inputs} is one file, but each image here has {files}: name their folder"
            )
        # Named as it would be within a folder.
        return [CaseFiles((stem_of(inputs) or inputs.name).removesuffix("_0000"), (inputs,))]
    cases = group_images(inputs, files=files)
    if not cases:
        raise UserError(f"{inputs} holds no images")
    return cases


def predict_cases(
    predictor: Predictor,
    cases: Sequence[CaseFiles],
    output: Path,
    *,
    extras: Extras = MASKS_ALONE,
    overwrite: bool = False,
    replace_others: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """`predict_files` for cases whose files are known, with an existing predictor.

    replace_others: overwrite existing files of another model or other options instead of raising. A
    predictor of an in-memory model writes no record.
    """
    targets = [Targets.of(case, output, extras) for case in cases]
    _require_apart(cases, targets)
    with locked(output, "prediction"):
        for folder in {path.parent for target in targets for path in target.paths()}:
            sweep(folder)
        record = None if predictor.made_by is None else Manifest(output, predictor.made_by)
        job = _Job(predictor, record, overwrite, replace_others)
        return job.run(list(zip(cases, targets, strict=True)), on_progress)


def _is_dark(mask: Path, highest: int) -> bool:
    """Whether the highest label value is below an eighth of white, in a file shown as it is."""
    white = 2**8 - 1 if highest < 2**8 else 2**16 - 1
    as_it_is = (*PICTURE_ENDINGS, *TIFF_ENDINGS)
    return 8 * highest < white and mask.name.lower().endswith(as_it_is)


class _Job:
    """The cases of a folder, one after another; the folder is locked meanwhile."""

    def __init__(
        self, predictor: Predictor, record: Manifest | None, overwrite: bool, replace_others: bool
    ) -> None:
        self.predictor, self.record = predictor, record
        self.overwrite, self.replace_others = overwrite, replace_others
        self.done: list[str] = []
        self.skipped: list[str] = []
        self.redone: list[str] = []
        self.failed: dict[str, str] = {}

    def run(
        self,
        pairs: Sequence[tuple[CaseFiles, Targets]],
        on_progress: Callable[[int, int], None] | None,
    ) -> Outcome:
        there = {
            path: case.images
            for case, target in pairs
            for path in target.paths()
            if not self.overwrite and path.exists()
        }
        outdated: set[Path] = set()
        if self.record is not None:
            outdated = self.record.outdated(there, replace_others=self.replace_others)
        for number, (case, target) in enumerate(pairs, 1):
            wanted = {path for path in target.paths() if path not in there or path in outdated}
            if not wanted:
                self.skipped.append(case.name)
            elif self._segment(case, target, wanted):
                self.done.append(case.name)
                if wanted & outdated:
                    self.redone.append(case.name)
            if on_progress is not None:
                on_progress(number, len(pairs))
        self._require_there(pairs)
        done = set(self.done)
        written = [target.mask for case, target in pairs if case.name in done]
        return Outcome(
            tuple(self.done),
            tuple(self.skipped),
            self.failed,
            tuple(self.redone),
            any(_is_dark(mask, max(self.predictor.plan.values)) for mask in written),
        )

    def _require_there(self, pairs: Sequence[tuple[CaseFiles, Targets]]) -> None:
        """Raise UserError if files disappeared while others were written, such as with their
        folder."""
        lost = [
            path
            for case, target in pairs
            for path in target.paths()
            if case.name not in self.failed and not path.exists()
        ]
        if lost:
            raise UserError(
                f"{lost[0]} and, in all, {len(lost)} files were removed during the prediction:"
                " run it again to restore them"
            )

    def _segment(self, case: CaseFiles, target: Targets, wanted: set[Path]) -> bool:
        """Write the outputs of a case. Returns whether that was possible."""
        try:
            # Before the image is read: if it changes meanwhile, the next job notices.
            facts = [] if self.record is None else facts_of(case.images)
            found = segment_case(self.predictor, case.images, target)
        except ScratchError:
            raise
        except UserError as error:
            self.failed[case.name] = str(error)
            return False
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.failed[case.name] = f"{case.images[0]} needs more memory than there is"
            return False
        # A failed write ends the job: a full disk is full for the other cases too.
        with _noted(self.record, wanted, facts):
            found.write(target, wanted, self.predictor.plan.values)
        return True


@contextmanager
def _noted(record: Manifest | None, files: set[Path], images: Images) -> Iterator[None]:
    """Record the origin of files before they are written, so that a kill leaves none unknown."""
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


def _require_apart(cases: Sequence[CaseFiles], targets: Sequence[Targets]) -> None:
    """Refuse to overwrite input images."""
    images = {resolved(path) for case in cases for path in case.images}
    for target in targets:
        for path in target.paths():
            if resolved(path) in images:
                raise UserError(f"{path} is one of the images: name another folder for the masks")
