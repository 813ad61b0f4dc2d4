"""`swin-umamba demo`: nuclei segmented by a model trained minutes ago."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from swin_umamba.cli.console import err, errors_in_one_line, out
from swin_umamba.cli.training_bar import TrainingBar, clock


def demo(
    image: Annotated[
        Path | None, typer.Option(help="Your own image (TIFF, PNG, JPEG); needs --mask.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Its mask: 0 is background, all else foreground.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder for the run, missing or empty.", show_default="swin-umamba-demo"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result on a CPU.", min=0)] = 0,
    iterations: Annotated[int, typer.Option(help="Training iterations at most.", min=1)] = 300,
    minutes: Annotated[float, typer.Option(help="Minutes of training at most.", min=0.05)] = 4.0,
    backend: Annotated[
        str, typer.Option(help="Backend of the scan; swin-umamba doctor lists them.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads at most.", min=1)] = 1,
) -> None:
    """Train a small Swin-UMamba† on three quadrants of an image and segment the fourth.

    Without --image and --mask, on a real microscopy image of nuclei that pip downloads once.
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
        Text("The held-out quadrant holds no object, so there is no DSC.")
        if trained.dsc is None
        else Text.assemble("Held-out quadrant: ", (f"DSC {trained.dsc:.3f}", "bold"))
    )
    out.print(score)
    out.print(
        f"Trained for {len(trained.records)} iterations in {clock(trained.seconds)} on"
        f" {result.trained_on}"
    )
    out.print(f"Picture: {result.picture}", soft_wrap=True)
