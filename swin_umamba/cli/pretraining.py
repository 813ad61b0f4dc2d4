"""Run `swin-umamba pretrain` and print its progress and result."""

from __future__ import annotations

import shlex
import statistics
from pathlib import Path
from typing import Any

import typer

from swin_umamba.cli.console import counted, out
from swin_umamba.cli.preparing_bar import THREADS, PreparingBar
from swin_umamba.cli.training_bar import TrainingBar, clock, say_choice_of_graphs
from swin_umamba.common.devices import pick_device
from swin_umamba.common.encoders import network_name
from swin_umamba.drawing.plots import save_pretraining_curves
from swin_umamba.errors import UserError
from swin_umamba.loop.world import announced_rank, launched
from swin_umamba.pretrain import PretrainConfig, PretrainResult, Tiles, pretrain, read_tiles
from swin_umamba.pretrain.config import CLASSES, CONFIG
from swin_umamba.pretrain.encoder_file import ENCODER_FILE
from swin_umamba.pretrain.tasks import build_network
from swin_umamba.report import write_report
from swin_umamba.runs.folder import CURVES, holds_run, require_free, require_same
from swin_umamba.runs.log import waiting_share


def pretrain_run(images: Path, folder: Path, values: dict[str, Any], *, resume: bool) -> None:
    """Pretrain one encoder and print the result. values: config fields by name."""
    main = announced_rank() == 0
    out.quiet = not main
    resume = resume and holds_run(folder, CONFIG)
    start = PretrainConfig.load(folder / CONFIG) if resume else PretrainConfig()
    try:
        config = start.changed({**values, "images": str(images)})
    except ValueError as error:
        raise UserError(str(error)) from error
    if resume:
        require_same(folder, config)
    elif main:
        require_free(folder, CONFIG)
    if not launched():
        pick_device(config.device)
    build_network(config, config.in_channels or 3, 2)  # fails before anything is read
    with PreparingBar(shown=main) as bar:
        tiles = read_tiles(images, config, threads=THREADS, on_progress=bar)
    _say_what(config, tiles)
    with TrainingBar("Pretraining", score="accuracy") as progress:
        result = pretrain(config, tiles, folder, resume=resume, on_progress=progress)
    if main:
        save_pretraining_curves(folder / CURVES, result.records)
        _say_how_it_went(config, result, folder)
    if result.stopped:
        words = ["swin-umamba", "pretrain", str(images), str(folder), "--resume"]
        out.print(f"Stopped as requested. Continue: {shlex.join(words)}", soft_wrap=True)
        # A launcher would take this for a failure, and reports the signal it was sent itself.
        if result.signal is not None and not launched():
            raise typer.Exit(128 + result.signal)


def _say_what(config: PretrainConfig, tiles: Tiles) -> None:
    height, width = config.image_size
    classes = "class" if len(tiles.classes) == 1 else "classes"
    what = f"{len(tiles.classes)} {classes}" if config.task == CLASSES else "masked pixels"
    _, held_out = tiles.split(config.held_out, config.seed)
    network = network_name(config.model, config.encoder)
    out.print(
        f"{network}: {counted(len(tiles) - len(held_out), 'training image')},"
        f" {len(held_out):,} held out, {height}x{width} with {counted(tiles.channels, 'channel')},"
        f" batches of {config.batch_size}, {what}"
    )


def _say_how_it_went(config: PretrainConfig, result: PretrainResult, folder: Path) -> None:
    steps = [record["step"] for record in result.records]
    last = result.records[-1] if result.records else {}
    scores = []
    if result.dsc is not None:
        scores.append(f"accuracy {result.dsc:.1%}")
    if "held_out_loss" in last:
        scores.append(f"loss {last['held_out_loss']:.4f} on held-out images")
    if steps:
        speed = config.batch_size / max(statistics.median(steps), 1e-9)
        waited = waiting_share(result.records) or 0.0
        scores.append(f"{speed:,.0f} images/s, {waited:.1%} of the time spent waiting for data")
    done = f"{counted(len(steps), 'iteration')}, {clock(result.seconds)}"
    out.print("; ".join([done, *scores]))
    say_choice_of_graphs(result.records)
    skipped = sum("skipped" in record for record in result.records)
    if skipped:
        out.print(f"Skipped {counted(skipped, 'step')}: see log.jsonl for the reasons")
    if result.records:
        out.print(f"Report: {write_report(folder)}", soft_wrap=True)
    encoder = folder / ENCODER_FILE
    out.print(f"Encoder: {encoder}", soft_wrap=True)
    if not result.stopped:
        words = shlex.join(_options_of_train(config, encoder))
        out.print(f"Next: swin-umamba train DATASET RUN {words}", soft_wrap=True)


def _options_of_train(config: PretrainConfig, encoder: Path) -> list[str]:
    """Options for training the model whose encoder this is."""
    words = ["--model", config.model, "--pretrained", str(encoder)]
    return words if config.encoder is None else [*words, "--encoder", config.encoder]
