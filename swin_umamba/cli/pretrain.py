"""`swin-umamba pretrain`: pretrain an encoder for `train --pretrained`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from swin_umamba.cli.console import errors_in_one_line
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
            help="folder: learn the images' classes (default). none: predict masked squares, from"
            " images alone."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model whose encoder (and stem) is trained; swin_umamba_d by default."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The model's encoder; vmamba_tiny by default.")
    ] = None,
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Height and width of the network's input; 64 64 by default."),
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="1 converts RGB to grey; by default as in the images.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON or YAML file of settings, such as a run's pretraining.json."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting, such as mask_share=0.5."),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="20,000 by default.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Summed over all processes; 512 by default.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="1e-3 by default.")] = None,
    amp: Annotated[str | None, typer.Option(help="auto, bf16, fp16 or off.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")
    ] = False,
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
