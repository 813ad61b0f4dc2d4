"""`swin-umamba predict`: segment images with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from swin_umamba.cli.console import errors_in_one_line, out, problem, progress


def predict(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folder of a training run, or an exported .onnx file. With several, such as the"
            " folds of a cross-validation, their probabilities are averaged.",
        ),
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
            "--mirror",
            help="Average over each window's three mirror images, too: four times the work.",
        ),
    ] = False,
    amp: Annotated[str, typer.Option(help="off (float32); on a GPU bf16, fp16, auto.")] = "off",
    onnx: Annotated[
        bool, typer.Option("--onnx", help="RUN is an exported file, whatever its name ends in.")
    ] = False,
    postprocessing: Annotated[
        bool,
        typer.Option(
            help="Keep only the largest component of the classes for which the run found that this"
            " helps (its postprocessing.json)."
        ),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:
    """Segment images: masks in the images' own format, geometry and labels.

    Existing files are kept, and only missing ones are written, or those whose images have changed:
    an interrupted job continues when it is started again. OUTPUT/predictions.jsonl lists what made
    each file; existing files of another model or other options are an error. Images that cannot be
    segmented are listed at the end, and the exit status is then 1.
    """
    with errors_in_one_line():
        from swin_umamba.inference.files import Extras, predict_files

        with progress() as bar:
            task = bar.add_task("Predicting", total=None)
            outcome = predict_files(
                runs,
                images,
                output,
                checkpoint="last" if last else "best",
                device=device,
                mirror=mirror,
                amp=amp,
                onnx=onnx,
                postprocessing=postprocessing,
                extras=Extras(save_probabilities, instances, overlays),
                overwrite=overwrite,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    existing = f", {len(outcome.skipped)} already existed" if outcome.skipped else ""
    redone = f", {len(outcome.redone)} of them again as images changed" if outcome.redone else ""
    count = len(outcome.done)
    out.print(
        f"{count} mask{'' if count == 1 else 's'} in {output}{redone}{existing}",
        soft_wrap=True,
    )
    for name, reason in outcome.failed.items():
        problem(reason, word=name)
    if outcome.failed:
        raise typer.Exit(1)
