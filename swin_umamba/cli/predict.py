"""`swin-umamba predict`: segment images with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.console import out, problem, progress, told


def predict(
    run: Annotated[
        Path, typer.Argument(help="Folder of a training run, or with --onnx an exported file.")
    ],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of them.")],
    output: Annotated[Path, typer.Argument(help="Folder for the masks.")],
    last: Annotated[bool, typer.Option("--last", help="The last weights, not the best.")] = False,
    save_probabilities: Annotated[
        bool,
        typer.Option(
            "--save-probabilities", help="Of all classes, in .npz files beside the masks."
        ),
    ] = False,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="Maps of the 8-connected objects of class 1, numbered from 1, in OUTPUT/instances:"
            " the image's format, 8 bits, 16, or in TIFF and NIfTI 32 as the numbers need.",
        ),
    ] = False,
    overlays: Annotated[
        bool,
        typer.Option("--overlays", help="The classes drawn over images: PNGs in OUTPUT/overlays."),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror", help="Average logits over the image and its three mirror images: 4x work."
        ),
    ] = False,
    amp: Annotated[str, typer.Option(help="off (float32), or on a GPU bf16 or fp16.")] = "off",
    onnx: Annotated[bool, typer.Option("--onnx", help="RUN is a file of `export`.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Masks that are there already, too.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Segment images: masks in the images' own format, geometry and labels.

    Files that are there already are left and only missing ones written, or those whose images have
    changed, so a broken-off job goes on where it was. OUTPUT/predictions.jsonl tells what made each
    file, and finding some of another model or other options is an error. Images that cannot be read
    are named at the end, and the exit status is then 1.
    """
    with told():
        from swin_umamba.inference.files import Extras, predict_files

        with progress() as bar:
            task = bar.add_task("Predicting", total=None)
            outcome = predict_files(
                run,
                images,
                output,
                checkpoint="last" if last else "best",
                device=device,
                mirror=mirror,
                amp=amp,
                onnx=onnx,
                extras=Extras(save_probabilities, instances, overlays),
                overwrite=overwrite,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    already = f", {len(outcome.skipped)} were there already" if outcome.skipped else ""
    anew = f", {len(outcome.redone)} of them anew: their images changed" if outcome.redone else ""
    out.print(f"{len(outcome.done)} masks in {output}{anew}{already}", soft_wrap=True)
    for name, reason in outcome.failed.items():
        problem(reason, word=name)
    if outcome.failed:
        raise typer.Exit(1)
