"""`swin-umamba train`: from a folder of images and masks to a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from swin_umamba.cli.console import err, out, told
from swin_umamba.cli.training_bar import TrainingBar, clock
from swin_umamba.errors import UserError

if TYPE_CHECKING:
    from swin_umamba.train import TrainConfig


class Train(TyperCommand):
    """A command whose option --folds takes as many words as follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args)


def train(
    dataset: Annotated[
        Path, typer.Argument(help="nnU-Net v2 raw dataset, or a folder with images/ and masks/.")
    ],
    run: Annotated[Path, typer.Argument(help="Folder for the run: missing or empty.")],
    preset: Annotated[
        str | None,
        typer.Option(help="A published training: abdomen_mri, endoscopy or microscopy."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="See swin-umamba summary; swin_umamba_d by default.")
    ] = None,
    fold: Annotated[str | None, typer.Option(help="0 to 4, or all; 0 by default.")] = None,
    splits: Annotated[Path | None, typer.Option(help="Splits in nnU-Net's form.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON or YAML file of settings, as config.json of a run."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="One field of the config, such as ema=0.999."
        ),
    ] = None,
    pretrained: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    iterations: Annotated[int | None, typer.Option(help="25,000 by default.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after this long.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of all processes together.")] = None,
    patch_size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width; by the images otherwise.")
    ] = None,
    axis: Annotated[int | None, typer.Option(help="Of volumes: 0, 1, 2 slices along z, y, x.")] = (
        None
    ),
    lr: Annotated[float | None, typer.Option(help="1e-4 by default.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the run; 0 by default.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Iterations.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="End after so many validations without a better one.")
    ] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or off.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that cut patches.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in the folder, if there is one."),
    ] = False,
) -> None:
    """Train a model on your images.

    Ctrl-C ends a run after the iteration, with a checkpoint; --resume goes on from there, as it
    does after a crash. The release's protocol is the default, every number of it an option here or
    a field of --config and --set. Several GPUs: accelerate launch -m swin_umamba.cli train ...
    """
    options: dict[str, Any] = {
        "preset": preset,
        "model": model,
        "fold": fold,
        "pretrained": str(pretrained) if pretrained else None,
        "iterations": iterations,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "warmup": warmup,
        "validate_every": validate_every,
        "patience": patience,
        "amp": amp,
        "workers": workers,
        "seed": seed,
        "device": device,
    }
    with told():
        from swin_umamba.drawing.plots import save_curves
        from swin_umamba.runs.folder import CURVES, holds_run, require_free
        from swin_umamba.runs.settings import load_settings, parse_settings
        from swin_umamba.train import prepare, read_run, train_prepared
        from swin_umamba.train.world import World

        given = {name: value for name, value in options.items() if value is not None}
        resume = resume and holds_run(run)
        started = None
        if resume:
            started = read_run(run)
            for name, value in (
                ("--splits", splits),
                ("--patch-size", patch_size),
                ("--axis", axis),
            ):
                if value is not None:
                    raise UserError(f"{name} is that of the run that --resume goes on with")
        try:
            written = {} if config is None else load_settings(config)
            values = {**written, **parse_settings(setting or []), **given}
            settings = (started or _start(values)).changed(values)
        except ValueError as error:
            raise UserError(str(error)) from error
        if patch_size is None and settings.preset is not None and not resume:
            patch_size = settings.patch_size  # not by the images
        world = World(settings.device)
        out.quiet = not world.main
        if world.main and not resume:
            require_free(run)
        with err.status("Reading and preprocessing"):
            prepared = prepare(
                dataset,
                settings,
                run=run if resume else None,
                splits_file=splits,
                patch_size=patch_size,
                axis=axis,
                threads=4,
            )
        _say_what(prepared.config, len(prepared.train_cases.volumes), prepared.val_cases.volumes)
        with TrainingBar() as bar:
            result = train_prepared(prepared, run, resume=resume, on_progress=bar)
        if not world.main:
            return
        save_curves(run / CURVES, result.records)
    if result.pretrained is not None:
        said = f"Started from {settings.pretrained}: {result.pretrained.summary()}"
        out.print(said, soft_wrap=True)
    best = "no case to score" if result.best_dsc is None else f"best DSC {result.best_dsc:.4f}"
    steps = sum(record["step"] for record in result.records)
    waited = sum(record["waited"] for record in result.records) / max(steps, 1e-9)
    out.print(
        f"{best} after {len(result.records)} iterations, {clock(result.seconds)};"
        f" {waited:.1%} of the steps' time went by waiting for data"
    )
    skipped = sum("skipped" in record for record in result.records)
    if skipped:
        out.print(f"{skipped} steps were skipped: log.jsonl says why")
    if result.stopped:
        command = shlex.join(["swin-umamba", "train", str(dataset), str(run), "--resume"])
        out.print(f"Stopped as asked. Go on: {command}", soft_wrap=True)
    out.print(f"Run: {run}", soft_wrap=True)
    # A launcher would take it for a failure, and itself tells of a signal that it was sent.
    if result.signal is not None and world.size == 1:
        raise typer.Exit(128 + result.signal)


def _start(values: dict[str, Any]) -> TrainConfig:
    """What the given values change: the preset that they name, or the defaults."""
    from swin_umamba.train import TrainConfig, preset_config

    if values.get("preset") is None:
        return TrainConfig()
    chosen = {name: values[name] for name in ("model", "pretrained") if name in values}
    return preset_config(values["preset"], **chosen)


def _say_what(config: TrainConfig, train_cases: int, val_cases: list[Any]) -> None:
    height, width = config.patch_size
    out.print(
        f"{config.model}: {train_cases} cases to train on, {len(val_cases)} to validate, patches"
        f" {height}x{width}, batches of {config.batch_size}, {config.num_classes} classes"
    )
