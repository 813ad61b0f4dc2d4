"""`swin-umamba train`: from a folder of images and masks to a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from swin_umamba.cli.console import errors_in_one_line
from swin_umamba.errors import UserError

FOLDS = "--folds"
_FOLD_WORD = re.compile(r"\d+(,\d+)*,?")


class Train(TyperCommand):
    """A command whose option --folds takes all numbers that follow it: --folds 0 1 2 3 4."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _joined(args))


def _joined(args: list[str]) -> list[str]:
    """The arguments with the words after --folds as one, with commas."""
    joined: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        joined.append(word)
        if word == FOLDS:
            numbers = []
            while rest and _FOLD_WORD.fullmatch(rest[0]):
                numbers.append(rest.pop(0).strip(","))
            if numbers:
                joined.append(",".join(numbers))
        elif word == "--":
            break
    return joined + rest


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
    folds: Annotated[
        list[str] | None,
        typer.Option(
            FOLDS,
            metavar="0 1 2 ...",
            help="Several folds, a run for each in RUN/fold_0, RUN/fold_1, ...; then the table of"
            " the cross-validation.",
        ),
    ] = None,
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
    continue_from: Annotated[
        Path | None,
        typer.Option(help="A run whose model and best weights to start from; classes may differ."),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="25,000 by default.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after this long.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Of all processes together; by the GPU's memory and the dataset, 2 on a CPU."
        ),
    ] = None,
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
    does after a crash. Settings are those of the original implementation but for the batch size,
    which is planned, and deep supervision, which every model has; each is an option here or a field
    of --config and --set. Several GPUs: accelerate launch -m swin_umamba.cli train ...
    """
    options: dict[str, Any] = {
        "preset": preset,
        "model": model,
        "fold": fold,
        "pretrained": str(pretrained) if pretrained else None,
        "continue_from": str(continue_from) if continue_from else None,
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
    with errors_in_one_line():
        from swin_umamba.cli.training import Job, train_folds, train_run
        from swin_umamba.runs.settings import load_settings, parse_settings

        given = {name: value for name, value in options.items() if value is not None}
        written = {} if config is None else load_settings(config)
        values = {**written, **parse_settings(setting or []), **given}
        job = Job(dataset, values, splits, patch_size, axis, resume)
        if folds is None:
            train_run(job, run)
        elif fold is not None:
            raise UserError("--fold is for one run, --folds for one of each: give one of the two")
        else:
            train_folds(job, run, _numbers(folds))


def _numbers(words: list[str]) -> list[int]:
    parts = [part for word in words for part in word.replace(",", " ").split()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError(f"--folds: got {' '.join(words)!r}, expected numbers, as in --folds 0 1 2")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--folds: got {' '.join(parts)}, expected each once")
    return numbers
