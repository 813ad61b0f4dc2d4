"""Run `swin-umamba train` and print its result: one run, or one per fold."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from swin_umamba.cli.console import counted, out, progress, warning
from swin_umamba.cli.cross_validation_table import table
from swin_umamba.cli.preparing_bar import THREADS, PreparingBar
from swin_umamba.cli.training_bar import TrainingBar, clock, say_choice_of_graphs
from swin_umamba.common.devices import pick_device
from swin_umamba.common.encoders import network_name
from swin_umamba.data import open_dataset
from swin_umamba.drawing.plots import save_curves
from swin_umamba.errors import UserError
from swin_umamba.evaluate.cross_validation import cross_validate
from swin_umamba.evaluate.held_out import remarks_on_sources
from swin_umamba.loop.world import announced_rank, launched
from swin_umamba.runs.config import TrainConfig
from swin_umamba.runs.folder import CURVES, holds_run, require_free, require_same
from swin_umamba.runs.folds import fold_folder, folds_of, require_parent
from swin_umamba.runs.log import waiting_share
from swin_umamba.runs.presets import preset_config
from swin_umamba.runs.run import Run
from swin_umamba.train import Prepared, TrainResult, prepare, read_run, train_prepared
from swin_umamba.train.from_dataset import with_planned_batches
from swin_umamba.train.network import build_model
from swin_umamba.weights import continuation

if TYPE_CHECKING:
    from swin_umamba.weights.report import Report


@dataclass(frozen=True)
class Job:
    """What was requested. values: config fields by name, from options and files."""

    dataset: Path
    values: dict[str, Any]
    splits: Path | None
    axis: int | None
    resume: bool


def train_run(job: Job, folder: Path) -> None:
    """Train one run and print the result."""
    out.quiet = announced_rank() > 0
    (prepared,) = with_planned_batches([_prepared(job, folder, job.values)])
    _warn([prepared])
    result = _train(job, folder, prepared)
    if result.stopped:
        _say_how_to_go_on(job, folder)
    out.print(f"Run: {folder}", soft_wrap=True)
    if not result.stopped:
        _say_what_is_next(folder)
    _leave_as_asked(result)


def train_folds(job: Job, folder: Path, folds: list[int]) -> None:
    """Train one run per fold, one after another, then cross-validate the whole folder."""
    out.quiet = announced_rank() > 0
    require_parent(folder)
    # A fold that is added to existing ones gets their settings, except what is requested now.
    like = next(iter(folds_of(folder) if job.resume else ()), None)
    # Check all of them first, so that no error is found only hours later.
    every = [
        _prepared(job, fold_folder(folder, fold), _values(job, fold, like), like=like)
        for fold in folds
    ]
    every = with_planned_batches(every)
    _warn(every)
    for fold, prepared in zip(folds, every, strict=True):
        out.print(f"Fold {fold}:")
        result = _train(job, fold_folder(folder, fold), prepared)
        if result.stopped:
            _say_how_to_go_on(job, folder, "--folds", *map(str, folds))
            _leave_as_asked(result)
            return
    if announced_rank() == 0:
        _cross_validate(job, folder, every[0].config.device)


def _values(job: Job, fold: int, like: Path | None) -> dict[str, Any]:
    """The request for one fold; it continues from the same fold if the source has several."""
    values = {**job.values, "fold": str(fold)}
    named = values.get("continue_from") or (like and read_run(like).continue_from)
    if named is not None:
        source = Path(named)
        if like is not None and source.name == like.name:
            source = source.parent  # where the other fold got it from
        if folds_of(source):
            values["continue_from"] = str(fold_folder(source, fold))
    return values


def _prepared(
    job: Job, folder: Path, values: dict[str, Any], *, like: Path | None = None
) -> Prepared:
    """Check the request and prepare the dataset. like: a run with the wanted settings."""
    resume = job.resume and holds_run(folder)
    if resume:
        for name, value in (("--splits", job.splits), ("--axis", job.axis)):
            if value is not None:
                raise UserError(f"{name} is fixed by the run that --resume continues")
    elif announced_rank() == 0:
        require_free(folder)
    source = folder if resume else like
    try:
        settings = (_start(values) if source is None else read_run(source)).changed(values)
    except ValueError as error:
        raise UserError(str(error)) from error
    if resume:
        require_same(folder, settings)
    if not launched():
        pick_device(settings.device)
    if not resume:
        build_model(settings, pretrained=True)  # fails before hours of preprocessing
    chosen = like is not None or settings.preset is not None or "patch_size" in values
    axis = job.axis
    if axis is None and not resume and like is not None:
        axis = Run.open(like).require_plan().axis
    with PreparingBar(shown=announced_rank() == 0) as bar:
        prepared = prepare(
            job.dataset,
            settings,
            run=folder if resume else None,
            splits_file=job.splits,
            # determined by the images
            patch_size=settings.patch_size if chosen and not resume else None,
            axis=axis,
            threads=THREADS,
            on_progress=bar,
        )
    planned = source is None and settings.preset is None and "batch_size" not in values
    return prepared if planned else replace(prepared, largest_batch=None)


def _warn(every: Iterable[Prepared]) -> None:
    """Warnings about the dataset, one line each, once for all folds."""
    if announced_rank() == 0:
        for text in dict.fromkeys(said for prepared in every for said in prepared.warnings):
            warning(text)


def _start(values: dict[str, Any]) -> TrainConfig:
    """The starting point for the given values: their preset or run, or the defaults."""
    if values.get("preset") is not None:
        chosen = {name: values[name] for name in ("model", "pretrained") if name in values}
        return preset_config(values["preset"], **chosen)
    if values.get("continue_from") is not None and "model" not in values:
        source = Run.open(values["continue_from"]).config
        fields = ("model", "encoder", "model_options", "deep_supervision")
        return TrainConfig().changed({name: getattr(source, name) for name in fields})
    return TrainConfig()


def _train(job: Job, folder: Path, prepared: Prepared) -> TrainResult:
    config = prepared.config
    resume = job.resume and holds_run(folder)
    _say_what(prepared)
    if not resume and announced_rank() == 0:
        _warn_of_sources(prepared)
        _warn_of_frozen_encoder(config, config.iterations)
    with TrainingBar() as bar:
        result = train_prepared(prepared, folder, resume=resume, on_progress=bar)
    if announced_rank() == 0:
        save_curves(folder / CURVES, result.records)
        _say_how_it_went(config, result)
    return result


def _say_what(prepared: Prepared) -> None:
    config = prepared.config
    height, width = config.patch_size
    network = network_name(config.model, config.encoder)
    out.print(
        f"{network}: {counted(len(prepared.train_cases.volumes), 'training case')},"
        f" {len(prepared.val_cases.volumes)} for validation, patches {height}x{width}, batches of"
        f" {config.batch_size}, {config.num_classes} classes"
    )


def _warn_of_sources(prepared: Prepared) -> None:
    """Warnings about validation cases that earlier runs were trained on, and renamed classes."""
    config = prepared.config
    found = remarks_on_sources(prepared.split.val, config)
    source = None if config.continue_from is None else Run.open(config.continue_from)
    there, here = (run and run.plan and run.plan.output_names for run in (source, prepared))
    if there and here and there != here and len(there) == len(here):
        found.append(
            f"{config.continue_from} has the classes {', '.join(there)}, which go on as"
            f" {', '.join(here)}, in this order"
        )
    for text in found:
        warning(text)


def _warn_of_frozen_encoder(config: TrainConfig, iterations: int) -> None:
    if config.freezes(iterations - 1):
        warning(
            f"the pretrained encoder is frozen for {config.freeze_iterations:,} iterations, and the"
            f" run has {iterations:,}: --set freeze_iterations=0 trains it from the start"
        )


def _say_how_it_went(config: TrainConfig, result: TrainResult) -> None:
    if result.pretrained is not None:
        out.print(_origin(config, result.pretrained), soft_wrap=True)
    best = (
        "no case to score"
        if result.best_dsc is None
        else f"best DSC {result.best_dsc:.4f} in validation (mean over classes and cases)"
    )
    waited = waiting_share(result.records) or 0.0
    out.print(
        f"{best} after {counted(len(result.records), 'iteration')}, {clock(result.seconds)};"
        f" {waited:.1%} of the time was spent waiting for data"
    )
    if len(result.records) < config.iterations and not result.stopped:  # fewer than was known
        _warn_of_frozen_encoder(config, len(result.records))
    say_choice_of_graphs(result.records)
    skipped = sum("skipped" in record for record in result.records)
    if skipped:
        out.print(f"Skipped {counted(skipped, 'step')}: see log.jsonl for the reasons")


def _origin(config: TrainConfig, report: Report) -> str:
    if config.continue_from is not None:
        return f"Continued from {report.path}: {continuation(report)}"
    return f"Started from {config.pretrained}: {report.summary()}"


def _say_how_to_go_on(job: Job, folder: Path, *options: str) -> None:
    words = ["swin-umamba", "train", str(job.dataset), str(folder), *options, "--resume"]
    out.print(f"Stopped. Go on: {shlex.join(words)}", soft_wrap=True)


def _say_what_is_next(folder: Path) -> None:
    run = shlex.quote(str(folder))
    for words in (f"predict {run} IMAGES OUTPUT --overlays", f"report {run}"):
        out.print(f"Next: swin-umamba {words}", soft_wrap=True)


def _leave_as_asked(result: TrainResult) -> None:
    # A launcher would take this for a failure, and reports the signal it was sent itself.
    if result.signal is not None and not launched():
        raise typer.Exit(128 + result.signal)


def _cross_validate(job: Job, folder: Path, device: str) -> None:
    with progress() as bar:
        task = bar.add_task("Cross-validation", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        dataset = open_dataset(job.dataset)
        found = cross_validate(folder, dataset, device=device, on_progress=show)
    out.print(table(found))
    names = dict(zip(dataset.values, dataset.labels, strict=True))
    kept = ", ".join(names[value] for value in found.postprocessing.keep_largest)
    if kept:
        out.print(
            f"Keep the largest component only, which scores better; `predict` applies it: {kept}"
        )
    out.print(f"Runs: {folder}", soft_wrap=True)
