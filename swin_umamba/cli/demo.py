"""`swin-umamba demo`: train a small model and segment nuclei with it within minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from swin_umamba.cli.commands import DEVICES
from swin_umamba.cli.console import counted, err, errors_in_one_line, out
from swin_umamba.cli.training_bar import TrainingBar, clock


def demo(
    image: Annotated[
        Path | None, typer.Option(help="Your own image (TIFF, PNG or JPEG), with --mask.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Its mask; 0 is background, anything else foreground.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the results; missing or empty.",
            show_default="swin-umamba-demo",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="On a CPU, the same seed gives the same result.", min=0)
    ] = 0,
    iterations: Annotated[
        int, typer.Option(help="Maximum number of training iterations.", min=1)
    ] = 300,
    minutes: Annotated[float, typer.Option(help="Maximum minutes of training.", min=0.05)] = 4.0,
    backend: Annotated[
        str, typer.Option(help="Backend of the scan; see swin-umamba doctor.")
    ] = "auto",
    device: Annotated[str, typer.Option(help=DEVICES + ".")] = "auto",
    threads: Annotated[int, typer.Option(help="Maximum number of CPU threads.", min=1)] = 1,
) -> None:
    """Train a small Swin-UMamba† on three quadrants of an image, and segment the fourth.

    By default on a microscopy image of nuclei, which is downloaded once.
    """
    with errors_in_one_line():
        with err.status("Getting ready"):
            from swin_umamba.demo.run import free_folder, load_pair, require_possible, run_demo

            folder = folder or free_folder()
            require_possible(folder, backend=backend, device=device)
            pair = load_pair(image, mask)
        height, width = pair.mask.shape
        out.print(f"Image: {pair.name}, {height}x{width} pixels", soft_wrap=True)
        with TrainingBar() as bar:
            result = run_demo(
                pair,
                folder,
                iterations=iterations,
                minutes=minutes,
                seed=seed,
                backend=backend,
                device=device,
                threads=threads,
                on_progress=bar,
            )
    trained = result.train
    score = (
        Text("The held-out quadrant contains no object, so there is no DSC.")
        if trained.dsc is None
        else Text.assemble("Held-out quadrant: ", (f"DSC {trained.dsc:.3f}", "bold"))
    )
    out.print(score)
    out.print(
        f"Trained for {counted(len(trained.records), 'iteration')} in {clock(trained.seconds)} on"
        f" {result.trained_on}"
    )
    out.print(f"Picture: {result.picture}", soft_wrap=True)
    out.print("Next, with your own images: swin-umamba train DATASET RUN")
