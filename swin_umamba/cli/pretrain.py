"""`swin-umamba pretrain`: pretrain an encoder for `train --pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from swin_umamba.cli.commands import DATA, ENCODERS, MODEL, MODELS, TRAINING
from swin_umamba.cli.console import err, errors_in_one_line
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

_TASKS = {"folder": "classes", "none": "pixels"}


def pretrain(
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder with a folder for each class, a CSV file with the columns image and"
            " label, or an archive of tiles; with --labels none, a folder of images or a"
            " segmentation dataset."
        ),
    ],
    run: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder: missing or empty.")],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="folder|none",
            help="folder: learn the images' classes. none: predict masked squares, from"
            " images alone.",
            show_default="folder",
            rich_help_panel=DATA,
        ),
    ] = None,
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="Size of the network's input.",
            show_default="64 64",
            rich_help_panel=DATA,
        ),
    ] = None,
    in_channels: Annotated[
        int | None,
        typer.Option(
            help="Image channels; 1 converts RGB to gray.",
            show_default="as in the images",
            rich_help_panel=DATA,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"Model whose encoder (and stem) is trained: {MODELS}.",
            show_default="swin_umamba_d",
            rich_help_panel=MODEL,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help=f"The model's encoder: {ENCODERS}.",
            show_default="vmamba_tiny",
            rich_help_panel=MODEL,
        ),
    ] = None,
    config: Annotated[Path | None, config_option("pretraining.json")] = None,
    setting: Annotated[list[str] | None, setting_option("mask_share=0.5")] = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="Number of iterations.", show_default="20,000", rich_help_panel=TRAINING),
    ] = None,
    minutes: Annotated[float | None, MINUTES] = None,
    batch_size: Annotated[int | None, batch_size_option("512")] = None,
    lr: Annotated[float | None, lr_option("1e-3")] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of all random choices.", show_default="0", rich_help_panel=TRAINING),
    ] = None,
    device: Annotated[str | None, DEVICE] = None,
    amp: Annotated[str | None, AMP] = None,
    resume: Annotated[bool, RESUME] = False,
) -> None:
    """Pretrain an encoder on images with classes, or on images alone.

    OUT/encoder.safetensors is for `train --pretrained` and the nnU-Net trainers. Ctrl-C stops after
    the current iteration and saves a checkpoint; --resume continues from there, also after a crash.
    Several GPUs: torchrun --nproc-per-node=N -m swin_umamba.cli pretrain ...
    """
    options: dict[str, Any] = {
        "model": model,
        "encoder": encoder,
        "image_size": image_size,
        "in_channels": in_channels,
        "iterations": iterations,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "amp": amp,
        "seed": seed,
        "device": device,
    }
    with errors_in_one_line():
        with err.status("Loading"):
            from swin_umamba.cli.pretraining import pretrain_run
            from swin_umamba.pretrain.config import PretrainConfig
            from swin_umamba.runs.settings import load_settings, parse_settings

        given = {name: value for name, value in options.items() if value is not None}
        if labels is not None:
            if labels not in _TASKS:
                raise UserError(f"--labels: got {labels!r}, expected folder or none")
            given["task"] = _TASKS[labels]
        written = {} if config is None else load_settings(config, PretrainConfig)
        values = {**written, **parse_settings(setting or [], PretrainConfig), **given}
        pretrain_run(images, run, values, resume=resume)
