"""`swin-umamba train`: from a folder of images and masks to a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from swin_umamba.cli.commands import (
    BASELINES,
    DATA,
    ENCODERS,
    MODEL,
    MODELS,
    RUNNING,
    TRAINING,
    Command,
)
from swin_umamba.cli.console import err, errors_in_one_line
from swin_umamba.cli.dataset_options import (
    DATASET,
    axis_option,
    patch_size_option,
    splits_option,
)
from swin_umamba.cli.run_options import (
    AMP,
    DEVICE,
    MINUTES,
    RESUME,
    batch_size_option,
    config_option,
    lr_option,
    setting_option,
)
from swin_umamba.errors import UserError

FOLDS = "--folds"
_OF_THE_DATASET = frozenset({"dataset", "in_channels", "num_classes"})
_FOLD_WORD = re.compile(r"\d+(,\d+)*,?")


class Train(Command):
    """A command whose option --folds takes all following numbers: --folds 0 1 2 3 4."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _joined(args))


def _joined(args: list[str]) -> list[str]:
    """The arguments with the words after --folds joined by commas."""
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
        Path,
        DATASET,
    ],
    run: Annotated[Path, typer.Argument(help="Folder to write the run to; missing or empty.")],
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Fold to hold out for validation, 0 to 4; all trains and validates on every case.",
            show_default="0",
            rich_help_panel=DATA,
        ),
    ] = None,
    folds: Annotated[
        list[str] | None,
        typer.Option(
            FOLDS,
            metavar="0 1 2 ...",
            help="Cross-validation: one run per fold, in RUN/fold_0, RUN/fold_1, ..., then a table"
            " of scores.",
            rich_help_panel=DATA,
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        splits_option(DATA),
    ] = None,
    patch_size: Annotated[
        tuple[int, int] | None,
        patch_size_option(DATA),
    ] = None,
    axis: Annotated[
        int | None,
        axis_option(DATA),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{MODELS}; for comparison {BASELINES}.",
            show_default="swin_umamba_d",
            rich_help_panel=MODEL,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help=f"Encoder of our models: {ENCODERS}.",
            show_default="vmamba_tiny",
            rich_help_panel=MODEL,
        ),
    ] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="Weights to start from: an ImageNet encoder or a whole model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Start from the model and best weights of another run; classes may differ.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings of the paper: abdomen_mri, endoscopy or microscopy.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    config: Annotated[Path | None, config_option("config.json")] = None,
    setting: Annotated[list[str] | None, setting_option("ema=0.999")] = None,
    iterations: Annotated[
        int | None, typer.Option(show_default="25,000", rich_help_panel=TRAINING)
    ] = None,
    minutes: Annotated[float | None, MINUTES] = None,
    batch_size: Annotated[
        int | None, batch_size_option("from the GPU's memory and the images; 2 on a CPU")
    ] = None,
    lr: Annotated[float | None, lr_option("1e-4")] = None,
    warmup: Annotated[
        float | None,
        typer.Option(
            help="Fraction of the run over which the learning rate rises.",
            show_default="0",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(
            help="Iterations between validations.", show_default="250", rich_help_panel=TRAINING
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this many validations without improvement.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(show_default="0", rich_help_panel=TRAINING)] = None,
    device: Annotated[str | None, DEVICE] = None,
    amp: Annotated[str | None, AMP] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that load batches.", show_default="auto", rich_help_panel=RUNNING
        ),
    ] = None,
    resume: Annotated[bool, RESUME] = False,
) -> None:
    """Train a model on your images.

    Ctrl-C stops after the current iteration and saves a checkpoint; --resume continues from there,
    also after a crash. Defaults are those of the original implementation, except for batch size
    (planned) and deep supervision (on for every model). Several GPUs: torchrun --nproc-per-node 2
    -m swin_umamba.cli train ...
    """
    options: dict[str, Any] = {
        "preset": preset,
        "model": model,
        "encoder": encoder,
        "fold": fold,
        "pretrained": str(pretrained) if pretrained else None,
        "continue_from": str(continue_from) if continue_from else None,
        "iterations": iterations,
        "minutes": minutes,
        "batch_size": batch_size,
        "patch_size": patch_size,
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
        with err.status("Loading"):
            from swin_umamba.cli.training import Job, train_folds, train_run
            from swin_umamba.runs.settings import load_settings, parse_settings

        given = {name: value for name, value in options.items() if value is not None}
        written = {} if config is None else load_settings(config)
        entries = parse_settings(setting or [])
        for name in sorted(_OF_THE_DATASET & entries.keys()):
            raise UserError(f"--set: {name} is determined by the dataset")
        job = Job(dataset, {**written, **entries, **given}, splits, axis, resume)
        if folds is None:
            train_run(job, run)
        elif fold is not None or "fold" in entries:
            raise UserError("--fold trains one run, --folds one per fold: give only one of the two")
        else:
            train_folds(job, run, _numbers(folds))


def _numbers(words: list[str]) -> list[int]:
    parts = [part for word in words for part in word.replace(",", " ").split()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UserError(f"--folds: got {' '.join(words)!r}, expected numbers, as in --folds 0 1 2")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--folds: got {' '.join(parts)}, expected each fold once")
    return numbers
