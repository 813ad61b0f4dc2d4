"""`swin-umamba demo`: nuclei segmented by a model trained minutes ago."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from swin_umamba.cli.console import err, out, told

if TYPE_CHECKING:
    from swin_umamba.train import Progress as TrainProgress


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
    with told():
        with err.status("Getting ready"):
            from swin_umamba.demo.run import free_folder, load_pair, require_possible, run_demo

            folder = folder or free_folder()
            require_possible(folder, backend=backend, device=device)
            pair = load_pair(image, mask)
        height, width = pair.mask.shape
        out.print(f"Image: {escape(pair.name)}, {height}x{width} pixels", soft_wrap=True)
        with _bar() as bar:
            task = bar.add_task("Training", total=1.0, loss="-", dsc="-", left="-")

            def show(progress: TrainProgress) -> None:
                bar.update(
                    task,
                    completed=progress.done,
                    loss=f"{progress.loss:.3f}",
                    dsc="-" if progress.dsc is None else f"{progress.dsc:.3f}",
                    left=_clock(progress.seconds_left),
                )

            result = run_demo(
                pair,
                folder,
                iterations=iterations,
                minutes=minutes,
                seed=seed,
                backend=backend,
                device=device,
                threads=threads,
                on_progress=show,
            )
    trained = result.train
    score = (
        "The held-out quadrant holds no object, so there is no DSC."
        if trained.dsc is None
        else f"Held-out quadrant: [bold]DSC {trained.dsc:.3f}[/]"
    )
    out.print(score)
    out.print(
        f"Trained for {len(trained.records)} iterations in {_clock(trained.seconds)} on"
        f" {escape(result.trained_on)}"
    )
    out.print(f"Picture: {escape(str(result.picture))}", soft_wrap=True)


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("DSC {task.fields[dsc]}"),
        TextColumn("{task.fields[left]} left"),
        console=out,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
