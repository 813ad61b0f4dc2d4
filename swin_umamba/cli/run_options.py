"""Options shared by `train` and `pretrain`."""

from __future__ import annotations

from typing import Any

import typer

from swin_umamba.cli.commands import DEVICES, RUNNING, TRAINING

MINUTES: Any = typer.Option(help="Stop after this time.", rich_help_panel=TRAINING)
DEVICE: Any = typer.Option(help=DEVICES + ".", show_default="auto", rich_help_panel=RUNNING)
AMP: Any = typer.Option(
    help="Mixed precision: auto, bf16, fp16 or off.", show_default="auto", rich_help_panel=RUNNING
)
RESUME: Any = typer.Option(
    "--resume",
    help="Continue the run in the folder from its last checkpoint, or start it if there is none.",
    rich_help_panel=RUNNING,
)


def config_option(file: str) -> Any:
    """file: the settings that a run's folder holds."""
    return typer.Option(
        help=f"JSON or YAML file of settings, such as another run's {file}.",
        rich_help_panel=TRAINING,
    )


def setting_option(example: str) -> Any:
    return typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help=f"Any setting, such as {example}; may be repeated.",
        rich_help_panel=TRAINING,
    )


def batch_size_option(default: str) -> Any:
    return typer.Option(
        help="Summed over all processes.", show_default=default, rich_help_panel=TRAINING
    )


def lr_option(default: str) -> Any:
    return typer.Option(help="Learning rate.", show_default=default, rich_help_panel=TRAINING)
