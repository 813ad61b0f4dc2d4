"""`swin-umamba train`: from a folder of images and masks to a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from swin_umamba.cli.console import err, out, told
from swin_umamba.errors import UserError

if TYPE_CHECKING:
    from swin_umamba.train import Progress as TrainProgress
    from swin_umamba.train import TrainConfig


def train(
    dataset: Annotated[
        Path, typer.Argument(help="nnU-Net v2 raw dataset, or a folder with images/ and masks/.")
    ],
    run: Annotated[Path, typer.Argument(help="Folder for the run: missing or empty.")],
    model: Annotated[str, typer.Option(help="See `swin-umamba summary`.")] = "swin_umamba_d",
    fold: Annotated[str, typer.Option(help="0 to 4, or all.")] = "0",
    splits: Annotated[Path | None, typer.Option(help="Splits in nnU-Net's form.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON file of further numbers, as config.json of a run.")
    ] = None,
    pretrained: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    iterations: Annotated[int | None, typer.Option(help="25,000 by default.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after this long.")] = None,
    batch_size: Annotated[int | None, typer.Option()] = None,
    patch_size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width; by the images otherwise.")
    ] = None,
    axis: Annotated[int | None, typer.Option(help="Of volumes: 0, 1, 2 slices along z, y, x.")] = (
        None
    ),
    lr: Annotated[float | None, typer.Option(help="1e-4 by default.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the run; 0 by default.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Iterations.")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or off.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that cut patches.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, as it was started.")
    ] = False,
) -> None:
    """Train a model on your images.

    Ctrl-C ends a run after the iteration, with a checkpoint; --resume goes on from there, as it
    does after a crash. The release's protocol is the default, every number of it an option here or
    a field of --config.
    """
    options: dict[str, Any] = {
        "model": model,
        "fold": fold,
        "pretrained": str(pretrained) if pretrained else None,
        "iterations": iterations,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "warmup": warmup,
        "validate_every": validate_every,
        "amp": amp,
        "workers": workers,
        "seed": seed,
        "device": device,
    }
    with told():
        from swin_umamba.plots import save_curves
        from swin_umamba.train import TrainConfig, prepare, read_run, train_prepared
        from swin_umamba.train.run_folder import CURVES, require_free

        if resume:
            settings = read_run(run)
            patch_size = settings.patch_size
        else:
            require_free(run)
            given = {name: value for name, value in options.items() if value is not None}
            try:
                base = TrainConfig.from_json(config.read_text()) if config else TrainConfig()
                settings = dataclasses.replace(base, **given)
            except (OSError, ValueError) as error:
                raise UserError(str(error)) from error
        with err.status("Reading and preprocessing"):
            prepared = prepare(
                dataset, settings, splits_file=splits, patch_size=patch_size, axis=axis, threads=4
            )
        _say_what(prepared.config, len(prepared.split.train), len(prepared.split.val))
        with _bar() as bar:
            task = bar.add_task("Training", total=1.0, loss="-", dsc="-", speed="-", left="-")

            def show(progress: TrainProgress) -> None:
                loss = "skipped" if progress.loss is None else f"{progress.loss:.3f}"
                dsc = "-" if progress.dsc is None else f"{progress.dsc:.3f}"
                seconds = progress.seconds_left * progress.done / max(1 - progress.done, 1e-9)
                images = progress.iteration * prepared.config.batch_size
                speed = f"{images / seconds:.1f}" if seconds and progress.done < 1 else "-"
                left = _clock(progress.seconds_left)
                bar.update(
                    task, completed=progress.done, loss=loss, dsc=dsc, speed=speed, left=left
                )

            result = train_prepared(prepared, run, resume=resume, on_progress=show)
        save_curves(run / CURVES, result.records)
    best = "no case to score" if result.best_dsc is None else f"best DSC {result.best_dsc:.4f}"
    skipped = sum("skipped" in record for record in result.records)
    out.print(f"{best} after {len(result.records)} iterations, {_clock(result.seconds)}")
    if skipped:
        out.print(f"{skipped} steps were skipped: log.jsonl says why")
    if result.stopped:
        out.print(f"Stopped as asked. Go on: swin-umamba train {dataset} {run} --resume")
    out.print(f"Run: {escape(str(run))}", soft_wrap=True)


def _say_what(config: TrainConfig, train_cases: int, val_cases: int) -> None:
    height, width = config.patch_size
    out.print(
        f"{config.model}: {train_cases} cases to train on, {val_cases} to validate, patches"
        f" {height}x{width}, batches of {config.batch_size}, {config.num_classes} classes"
    )


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("DSC {task.fields[dsc]}"),
        TextColumn("{task.fields[speed]} images/s"),
        TextColumn("{task.fields[left]} left"),
        console=out,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
